"""Servers that guard themselves: TLS, passwords and roles, with certificates made for the run.

Certificates are for ``localhost`` only, so that ``127.0.0.1`` is a wrong name that leads to the
same server. PostgreSQL comes from Debian's packages, because the wheel's is built without TLS.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pymongo
import trustme
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pymongo.errors import OperationFailure, PyMongoError

from coordinator.devstack import jars, ports, privileges
from coordinator.devstack.kafka import Kafka, new_cluster_id
from coordinator.devstack.mongodb import REPLICA_SET, MongoDB
from coordinator.devstack.postgresql import SETTINGS, PostgreSQL
from coordinator.devstack.processes import run_once

DEBIAN: Final = Path("/usr/lib/postgresql")
PASSWORD: Final = "p%40ss/w:rd+canary"
"""URL-encoded nowhere but in addresses: what a careless one would get wrong."""
KEY_PASSWORD: Final = "keypass-canary"
WRONG: Final = "wrong-canary"


def debian_postgresql() -> Path | None:
    """Give the folder of the newest PostgreSQL of Debian's packages that can make a cluster."""
    found = [each for each in DEBIAN.glob("*/bin") if (each / "initdb").exists()]
    return max(found, key=lambda each: float(each.parent.name), default=None)


class Certificates:
    """PEM files in a folder that every server's user may read."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        authority, stranger = trustme.CA(), trustme.CA()
        self.ca = self._write("ca.pem", authority.cert_pem.bytes())
        self.other_ca = self._write("other-ca.pem", stranger.cert_pem.bytes())
        yesterday = datetime.now(UTC) - timedelta(days=1)
        self.server = self._pair("server", authority.issue_cert("localhost"))
        self.expired = self._pair(
            "expired",
            authority.issue_cert(
                "localhost", not_before=yesterday - timedelta(days=2), not_after=yesterday
            ),
        )
        client = authority.issue_cert("client.example", common_name="certified")
        self.client = self._pair("client", client)
        self.stranger = self._pair(
            "stranger", stranger.issue_cert("client.example", common_name="certified")
        )
        self.client_certificate = self._write(
            "client.crt", b"".join(each.bytes() for each in client.cert_chain_pems)
        )
        key = client.private_key_pem.bytes()
        self.client_key = self._write("client.key", _pkcs8(key))
        locked = BestAvailableEncryption(KEY_PASSWORD.encode())
        self.locked_key = self._write("locked.key", _pkcs8(key, locked))

    def _pair(self, name: str, issued: trustme.LeafCert) -> Path:
        chain = b"".join(each.bytes() for each in issued.cert_chain_pems)
        return self._write(f"{name}.pem", _pkcs8(issued.private_key_pem.bytes()) + chain)

    def _write(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        path.chmod(0o600)
        privileges.give_to_other_user(path)  # PostgreSQL wants its key to be its own
        return path


def _pkcs8(key: bytes, encryption: KeySerializationEncryption | None = None) -> bytes:
    """Kafka takes keys in no other form."""
    loaded = load_pem_private_key(key, None)
    return loaded.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


class GuardedPostgreSQL(PostgreSQL):
    """Role `postgres` by trust, everybody else by TLS and password, `certified` by certificate."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        super().__init__(folder / "postgresql", folder / "postgresql.log")
        programs = debian_postgresql()
        assert programs is not None
        self._programs = programs
        self._certificates = certificates
        self._live = folder / "postgresql-server.pem"

    def describe(self) -> str:
        return f"PostgreSQL from {self._programs}"

    def prepare(self) -> None:
        data = self.folder / "data"
        data.mkdir(mode=0o700, exist_ok=True)
        privileges.give_to_other_user(data)
        initdb = str(self._programs / "initdb")
        run_once(
            [
                *privileges.command_prefix(),
                *(initdb, "--pgdata", str(data), "--username", "postgres", "--auth", "trust"),
                *("--encoding", "UTF8", "--locale", "C", "--no-sync", "--no-instructions"),
            ],
            cwd=self.folder,
            log=self.log,
            what="initdb",
        )
        (data / "pg_hba.conf").write_text(
            "host all postgres 127.0.0.1/32 trust\n"
            "hostssl all certified 127.0.0.1/32 cert\n"
            "hostssl all all 127.0.0.1/32 scram-sha-256\n"
        )
        self._put(self._certificates.server)

    def command(self) -> list[str]:
        settings = [f"--{name}={value}" for name, value in SETTINGS.items()]
        return [
            *privileges.command_prefix(),
            *(str(self._programs / "postgres"), "-D", str(self.folder / "data")),
            *("-p", str(self.port), *settings, "--ssl=on", f"--ssl_cert_file={self._live}"),
            *(f"--ssl_key_file={self._live}", f"--ssl_ca_file={self._certificates.ca}"),
        ]

    def serve(self, certificate: Path) -> None:
        """Show another certificate from now on."""
        self._put(certificate)
        assert self.pid is not None
        os.kill(self.pid, signal.SIGHUP)

    def _put(self, certificate: Path) -> None:
        new = self._live.with_suffix(".new")
        new.write_bytes(certificate.read_bytes())
        new.chmod(0o600)
        privileges.give_to_other_user(new)
        new.replace(self._live)


class GuardedMongoDB(MongoDB):
    """`requireTLS` and authentication; `root` may everything."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        super().__init__(folder / "mongodb", folder / "mongodb.log")
        self._certificates = certificates
        self._live = folder / "mongodb-server.pem"
        self._key_file = folder / "mongodb.key"

    @property
    def address(self) -> str:
        return self.uri("root", PASSWORD)

    def uri(self, user: str, password: str, host: str = "localhost", **more: str) -> str:
        """Give a URI with TLS; ``more`` are options, None of them given takes the CA's place."""
        options = {
            "replicaSet": REPLICA_SET,
            "authSource": "admin",
            "tls": "true",
            "tlsCAFile": str(self._certificates.ca),
            **more,
        }
        query = "&".join(f"{name}={value}" for name, value in options.items() if value)
        return f"mongodb://{user}:{quoted(password)}@{host}:{self.port}/?{query}"

    def prepare(self) -> None:
        super().prepare()
        shutil.copy(self._certificates.server, self._live)
        self._key_file.write_text(base64.b64encode(os.urandom(48)).decode())
        self._key_file.chmod(0o600)

    def command(self) -> list[str]:
        return [
            *super().command(),
            *("--tlsMode", "requireTLS", "--tlsCertificateKeyFile", str(self._live)),
            *("--tlsCAFile", str(self._certificates.ca)),
            "--tlsAllowConnectionsWithoutCertificates",
            *("--auth", "--keyFile", str(self._key_file)),
        ]

    def is_ready(self) -> bool:
        try:
            with self.client() as client:
                if client.admin.command("hello").get("isWritablePrimary"):
                    return self._has_root(client)
                self._configure(client)
        except PyMongoError as error:
            raise ConnectionError(str(error)) from error
        return False

    def client(self) -> pymongo.MongoClient[dict[str, Any]]:
        """Give a client that is nobody yet."""
        return pymongo.MongoClient(
            f"mongodb://localhost:{self.port}/?directConnection=true",
            tls=True,
            tlsCAFile=str(self._certificates.ca),
            serverSelectionTimeoutMS=1000,
        )

    def _configure(self, client: pymongo.MongoClient[dict[str, Any]]) -> None:
        members = [{"_id": 0, "host": f"localhost:{self.port}"}]
        try:
            client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
        except OperationFailure as error:
            if "already initialized" not in str(error):
                raise

    def _has_root(self, client: pymongo.MongoClient[dict[str, Any]]) -> bool:
        """Make the first user, as somebody on the machine may until there is one."""
        try:
            client.admin.command("createUser", "root", pwd=PASSWORD, roles=["root"])
        except OperationFailure as error:
            return "already exists" in str(error) or "requires authentication" in str(error)
        return True


LISTENERS: Final = ("SSL", "EXPIRED", "MTLS", "SCRAM", "PLAIN", "OAUTH", "OPEN_SCRAM", "ACL")
_KINDS: Final = {"topic": 2, "group": 3, "cluster": 4}
_LITERAL, _PREFIXED, _ALLOW = 3, 4, 3
_OPERATIONS: Final = {"Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
_JAAS: Final = "org.apache.kafka.common.security."


class GuardedKafka(Kafka):
    """One listener per way in, beside the open one on 127.0.0.1."""

    def __init__(self, folder: Path, certificates: Certificates) -> None:
        super().__init__(folder / "kafka", folder / "kafka.log")
        self._certificates = certificates
        drawn = {self.port}  # drawn by chance: two may be the same
        while len(drawn) < len(LISTENERS) + 2:
            drawn.add(ports.free_port())
        self._controller_port, *others = drawn - {self.port}
        self.ports = dict(zip(LISTENERS, others, strict=True))

    def bootstrap(self, listener: str, host: str = "localhost") -> str:
        """Give the address of a listener."""
        return f"{host}:{self.ports[listener]}"

    def prepare(self) -> None:
        (self.folder / "server.properties").write_text(self._settings(self._controller_port))
        (self.folder / "log4j2.properties").write_text("rootLogger.level = warn\n")
        if (self.folder / "data/meta.properties").exists():
            return
        run_once(
            [
                *self._java("-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"),
                *("kafka.tools.StorageTool", "format", "--ignore-formatted"),
                *("--cluster-id", new_cluster_id()),
                *("--config", str(self.folder / "server.properties")),
                *("--add-scram", f"SCRAM-SHA-512=[name=app,password={PASSWORD}]"),
                *("--add-scram", f"SCRAM-SHA-256=[name=app,password={PASSWORD}]"),
                *("--add-scram", f"SCRAM-SHA-512=[name=coordinator,password={PASSWORD}]"),
            ],
            cwd=self.folder,
            log=self.log,
            what="The formatting of Kafka's storage",
        )

    async def grant(self, *rights: tuple[str, str, str]) -> None:
        """Give the user `coordinator` rights: (operations, kind of thing, its name)."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.address)
        await admin.start()
        try:
            for operations, kind, name in rights:
                pattern = _PREFIXED if name.endswith("*") else _LITERAL
                for operation in operations.split():
                    answer = await admin._send_request(
                        CreateAclsRequest(
                            _KINDS[kind],
                            name.rstrip("*"),
                            pattern,
                            "User:coordinator",
                            "*",
                            _OPERATIONS[operation],
                            _ALLOW,
                        )
                    )
                    assert answer.creation_responses[0][0] == 0, answer
        finally:
            await admin.close()

    def describe(self) -> str:
        return jars.class_path(self.report)[1]

    def _settings(self, controller_port: int) -> str:
        lines = super()._settings(controller_port)
        given = dict(line.split("=", 1) for line in lines.splitlines())
        own = {name: f"{name}://localhost:{port}" for name, port in self.ports.items()}
        kinds = {
            "SSL": "SSL",
            "EXPIRED": "SSL",
            "MTLS": "SSL",
            "SCRAM": "SASL_SSL",
            "PLAIN": "SASL_SSL",
            "OAUTH": "SASL_SSL",
            "OPEN_SCRAM": "SASL_PLAINTEXT",
            "ACL": "SASL_SSL",
        }
        given["listeners"] += "," + ",".join(own.values())
        given["advertised.listeners"] += "," + ",".join(own.values())
        given["listener.security.protocol.map"] += "," + ",".join(
            f"{name}:{kind}" for name, kind in kinds.items()
        )
        given["authorizer.class.name"] = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"
        # Whoever comes in by the other listeners may everything; "coordinator" what it is granted.
        given["super.users"] = "User:ANONYMOUS;User:app;User:certified"
        given["ssl.principal.mapping.rules"] = "RULE:^.*CN=([^,]+).*$/$1/,DEFAULT"
        given["ssl.keystore.type"] = given["ssl.truststore.type"] = "PEM"
        given["ssl.keystore.location"] = str(self._certificates.server)
        given["ssl.truststore.location"] = str(self._certificates.ca)
        for name, value in (
            ("expired.ssl.keystore.type", "PEM"),
            ("expired.ssl.keystore.location", str(self._certificates.expired)),
            ("mtls.ssl.client.auth", "required"),
            ("scram.sasl.enabled.mechanisms", "SCRAM-SHA-512,SCRAM-SHA-256"),
            ("scram.scram-sha-512.sasl.jaas.config", f"{_JAAS}scram.ScramLoginModule required;"),
            ("scram.scram-sha-256.sasl.jaas.config", f"{_JAAS}scram.ScramLoginModule required;"),
            ("open_scram.sasl.enabled.mechanisms", "SCRAM-SHA-512"),
            (
                "open_scram.scram-sha-512.sasl.jaas.config",
                f"{_JAAS}scram.ScramLoginModule required;",
            ),
            ("plain.sasl.enabled.mechanisms", "PLAIN"),
            (
                "plain.plain.sasl.jaas.config",
                f'{_JAAS}plain.PlainLoginModule required user_app="plain-canary";',
            ),
            ("acl.sasl.enabled.mechanisms", "SCRAM-SHA-512"),
            ("acl.scram-sha-512.sasl.jaas.config", f"{_JAAS}scram.ScramLoginModule required;"),
            ("oauth.sasl.enabled.mechanisms", "OAUTHBEARER"),
            (
                "oauth.oauthbearer.sasl.jaas.config",
                f"{_JAAS}oauthbearer.OAuthBearerLoginModule required"
                ' unsecuredLoginStringClaim_sub="broker";',
            ),
        ):
            given[f"listener.name.{name}"] = value
        return "".join(f"{name}={value}\n" for name, value in given.items())


def token(seconds: float = 3600.0) -> str:
    """Give an unsecured JSON Web Token, which expires in so long."""
    now = time.time()
    claims = {"sub": "app", "iat": now - 10, "exp": now + seconds}
    parts = (json.dumps(each).encode() for each in ({"alg": "none"}, claims))
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts) + "."


def reveals_nothing(error: BaseException) -> str:
    """Give the message, which must hold no secret."""
    message = str(error)
    secrets = (PASSWORD, quoted(PASSWORD), WRONG, KEY_PASSWORD, "plain-canary", "eyJ")
    assert not [secret for secret in secrets if secret in message]
    return message


def quoted(text: str) -> str:
    """Give a text as it stands in an address."""
    from urllib.parse import quote

    return quote(text, safe="")


class Guarded:
    """The servers of a test module; each starts when it is first asked for."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="coordinator-guarded-"))
        self.folder.chmod(0o755)
        self.certificates = Certificates(self.folder / "certificates")
        self.postgresql = GuardedPostgreSQL(self.folder, self.certificates)
        self.mongodb = GuardedMongoDB(self.folder, self.certificates)
        self.kafka = GuardedKafka(self.folder, self.certificates)

    @property
    def postgres_dsn(self) -> str:
        """DSN of the administrator; as everywhere else, for the tests' own look."""
        self.postgresql.start()
        return self.postgresql.address

    @property
    def mongodb_uri(self) -> str:
        """URI of the administrator."""
        self.mongodb.start()
        return self.mongodb.address

    @property
    def kafka_bootstrap(self) -> str:
        """The open listener."""
        self.kafka.start()
        return self.kafka.address

    def dsn(
        self, user: str, password: str, database: str, host: str = "localhost", **more: str
    ) -> str:
        """Give a DSN with TLS, verified."""
        options = {"sslmode": "verify-full", "sslrootcert": str(self.certificates.ca), **more}
        query = "&".join(f"{name}={value}" for name, value in options.items() if value)
        secret = f":{quoted(password)}" if password else ""
        return f"postgresql://{user}{secret}@{host}:{self.postgresql.port}/{database}?{query}"

    def close(self) -> None:
        """Stop what was started."""
        for server in (self.postgresql, self.mongodb, self.kafka):
            server.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
