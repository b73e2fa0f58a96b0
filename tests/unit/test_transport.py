"""Which connections may go unprotected, and what belongs to a protocol: told before any is made."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest
import trustme

from coordinator.bootstrap.kafka_security import kafka_options
from coordinator.bootstrap.transports import refuse_members_elsewhere, unprotected
from coordinator.client import CoordinatorClient, KafkaSecurity, PlaintextRefused
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.hosts import host_of, is_this_machine
from coordinator.kafka_access import TokenFile, TokenUnusable
from coordinator.settings import load_settings
from coordinator.settings.transport import dsn_transport, uri_transport
from coordinator.tls_files import TlsFiles, handshake_sentence

LOCAL = """
[journal]
store = "ledger"
[kafka]
bootstrap_servers = "127.0.0.1:9092"
[stores.ledger]
kind = "postgresql"
dsn = "postgresql://app@127.0.0.1/app"
[stores.catalog]
kind = "mongodb"
uri = "mongodb://127.0.0.1:27017/?replicaSet=rs0"
database = "app"
"""
ENTITIES = """
[account]
store = "ledger"
table = "accounts"
key = "id"
[account.fields]
id = { type = "integer" }
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "coordinator.toml"
    path.write_text(LOCAL)
    (tmp_path / "entities.toml").write_text(ENTITIES)
    return path


@pytest.fixture
def files(tmp_path: Path) -> Path:
    authority = trustme.CA()
    mine = authority.issue_cert("client.example")
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "mine.pem"))
    mine.private_key_pem.write_to_path(str(tmp_path / "mine.key"))
    mine.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "pair.pem"))
    other = authority.issue_cert("other.example")
    other.private_key_pem.write_to_path(str(tmp_path / "other.key"))
    (tmp_path / "junk.pem").write_text("no certificate")
    return tmp_path


def mistakes(config: Path, **overrides: object) -> list[str]:
    named = {name.replace("__", "."): value for name, value in overrides.items()}
    try:
        load_settings(config, named, {})
    except ConfigurationInvalid as error:
        return [
            each.replace("command line: ", "").replace(f"{config}: ", "") for each in error.mistakes
        ]
    return []


@pytest.mark.parametrize(
    ("server", "host"),
    [("a:1", "a"), ("a", "a"), ("[::1]:5", "::1"), (" b:2 ", "b"), ("%2Ftmp", "%2Ftmp")],
)
def test_the_host_of_a_server(server: str, host: str) -> None:
    assert host_of(server) == host


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("LOCALHOST", True),
        ("/run/postgresql", True),
        ("0.0.0.0", False),
        ("10.0.0.1", False),
        ("db", False),
        ("localhost.example", False),
        ("127.0.0.1.example", False),
        ("", False),
    ],
)
def test_what_is_this_machine(host: str, is_here: bool) -> None:
    assert is_this_machine(host) is is_here


@pytest.mark.parametrize(
    ("rest", "is_open"),
    [
        ("127.0.0.1/app", False),
        ("%2Frun%2Fpostgresql/app", False),
        ("/app?host=/run/postgresql", False),
        ("/app", False),
        ("db/app", True),
        ("127.0.0.1,db/app", True),
        ("/app?host=db", True),
        ("127.0.0.1/app?host=db", True),
        ("/app?service=production", True),
        ("db/app?sslmode=disable", True),
        ("db/app?sslmode=allow", True),
        ("db/app?sslmode=prefer", True),
        ("db/app?sslmode=require", True),
        ("db/app?sslmode=require&sslrootcert=ca.pem", True),
        ("db/app?sslmode=verify-ca&sslrootcert=ca.pem", True),
        ("db/app?sslmode=verify-full&sslrootcert=ca.pem", False),
        ("db/app?sslmode=verify_full&sslrootcert=ca.pem", False),
        ("db/app?sslmode=verify-full&sslmode=prefer", True),
        ("db/app?SSLMODE=verify-full", True),
    ],
)
def test_what_counts_as_open_in_postgresql(rest: str, is_open: bool) -> None:
    assert dsn_transport(f"postgresql://u:p@{rest}", {}).is_open is is_open


def test_variables_that_name_a_host_count() -> None:
    assert dsn_transport("postgresql:///app", {"PGHOST": "db"}).is_open
    assert dsn_transport("postgresql:///app", {"PGSERVICE": "production"}).is_open
    assert not dsn_transport("postgresql://localhost/app", {"PGHOST": "db"}).is_open


@pytest.mark.parametrize(
    ("uri", "is_open"),
    [
        ("mongodb://127.0.0.1:27017/", False),
        ("mongodb://%2Ftmp%2Fmongodb-27017.sock/", False),
        ("mongodb://127.0.0.1,m2/", True),
        ("mongodb://m1/", True),
        ("mongodb://m1/?tls=true", False),
        ("mongodb://m1/?ssl=true", False),
        ("mongodb://m1/?TLS=true", False),
        ("mongodb://m1/?tls=false", True),
        ("mongodb://m1/?tls=true&tls=false", True),
        ("mongodb://m1/?tls=true&TLS=false", True),
        ("mongodb://m1/?tlsCAFile=/ca.pem", False),
        ("mongodb://m1/?tls=true&tlsInsecure=true", True),
        ("mongodb://m1/?tls=true&tlsinsecure=true", True),
        ("mongodb://m1/?tls=true&tlsInsecure=false", False),
        ("mongodb://m1/?tls=true&tlsAllowInvalidCertificates=true", True),
        ("mongodb://m1/?tls=true&tlsAllowInvalidHostnames=true", True),
        ("mongodb://m1/?tls=true;tlsInsecure=true", True),
        ("mongodb+srv://cluster.example/", False),
        ("mongodb+srv://cluster.example/?tls=false", True),
        ("mongodb+srv://127.0.0.1.example/?tls=false", True),
    ],
)
def test_what_counts_as_open_in_mongodb(uri: str, is_open: bool) -> None:
    assert uri_transport(uri).is_open is is_open


def test_this_machine_needs_no_setting(config: Path) -> None:
    settings = load_settings(config, {}, {})
    assert unprotected(settings) == {}
    assert kafka_options(settings) == {"security_protocol": "PLAINTEXT"}


def test_every_open_connection_is_a_mistake_that_says_what_to_do(config: Path) -> None:
    found = mistakes(
        config,
        kafka__bootstrap_servers="127.0.0.1:9092,broker:9092",
        stores__ledger__dsn="postgresql://app:hunter2@db/app",
        stores__catalog__uri="mongodb://u:hunter2@m1/?replicaSet=rs0",
    )
    unverified = "leads off this machine, and the server's certificate and name are not checked"
    assert found == [
        f"stores.ledger.dsn: {unverified}; add sslmode=verify-full&sslrootcert=…, "
        "or set stores.ledger.allow_plaintext = true",
        f"stores.catalog.uri: {unverified}; add tls=true&tlsCAFile=… and no option that weakens "
        "it, or set stores.catalog.allow_plaintext = true",
        "kafka.security_protocol: is PLAINTEXT, and kafka.bootstrap_servers lead off this "
        "machine; use SSL or SASL_SSL, or set kafka.allow_plaintext = true",
    ]


def test_a_journal_of_its_own_is_judged_by_its_own_switch(config: Path) -> None:
    config.write_text(LOCAL.replace('store = "ledger"', 'dsn = "postgresql://app@db/journal"'))
    assert "or set journal.allow_plaintext = true" in mistakes(config)[0]
    assert mistakes(config, journal__allow_plaintext="true") == []


def test_what_is_allowed_is_told(config: Path) -> None:
    settings = load_settings(
        config,
        {
            "kafka.bootstrap_servers": "broker:9092",
            "kafka.allow_plaintext": "true",
            "stores.ledger.allow_plaintext": "true",
        },
        {},
    )
    assert unprotected(settings) == {
        "kafka": "It is PLAINTEXT, and kafka.bootstrap_servers lead off this machine. "
        "kafka.allow_plaintext allows it."
    }


@pytest.mark.parametrize(
    ("uri", "members", "is_refused"),
    [
        ("mongodb://127.0.0.1/?replicaSet=rs0", ["127.0.0.1:27017"], False),
        ("mongodb://127.0.0.1/?replicaSet=rs0", ["127.0.0.1:27017", "m2:27017"], True),
        ("mongodb://127.0.0.1/?directConnection=true", ["m2:27017"], False),
        ("mongodb://127.0.0.1/?tls=true", ["m2:27017"], False),
        ("mongodb://127.0.0.1/", [], False),
    ],
)
def test_members_elsewhere_are_refused(
    config: Path, uri: str, members: list[str], is_refused: bool
) -> None:
    settings = load_settings(config, {"stores.catalog.uri": uri}, {})
    if not is_refused:
        refuse_members_elsewhere(settings, "catalog", members)
        return
    with pytest.raises(ConfigurationInvalid, match="since the replica set names") as caught:
        refuse_members_elsewhere(settings, "catalog", members)
    assert "allow_plaintext = true" in caught.value.mistakes[0]
    allowed = {"stores.catalog.uri": uri, "stores.catalog.allow_plaintext": "true"}
    refuse_members_elsewhere(load_settings(config, allowed, {}), "catalog", members)


SASL = {"kafka__security_protocol": "SASL_SSL"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (SASL, ["kafka.sasl_mechanism: is missing with SASL_SSL"]),
        (
            {**SASL, "kafka__sasl_mechanism": "SCRAM-SHA-512"},
            [
                "kafka.sasl_username: is missing with SCRAM-SHA-512",
                "kafka.sasl_password: is missing with SCRAM-SHA-512",
            ],
        ),
        (
            {**SASL, "kafka__sasl_mechanism": "OAUTHBEARER", "kafka__sasl_username": "u"},
            [
                "kafka.token_file: is missing with OAUTHBEARER",
                "kafka.sasl_username: has no use with OAUTHBEARER",
            ],
        ),
        (
            {"kafka__sasl_password": "hunter2"},
            ["kafka.sasl_password: has no use with PLAINTEXT; did you mean SASL_SSL?"],
        ),
        (
            {"kafka__ca_file": "ca.pem"},
            ["kafka.ca_file: has no use with PLAINTEXT; did you mean SSL or SASL_SSL?"],
        ),
        (
            {"kafka__security_protocol": "SSL", "kafka__key_file": "mine.key"},
            ["kafka.certificate_file: is missing; a key alone proves nothing"],
        ),
        (
            {"kafka__security_protocol": "SSL", "kafka__ca_file": "nowhere.pem"},
            ["kafka.ca_file: the file cannot be read: No such file or directory"],
        ),
        (
            {"kafka__security_protocol": "SSL", "kafka__ca_file": "junk.pem"},
            ["kafka.ca_file: the file holds no certificates in PEM"],
        ),
        (
            {
                "kafka__security_protocol": "SSL",
                "kafka__certificate_file": "mine.pem",
                "kafka__key_file": "other.key",
            },
            ["kafka.certificate_file: the certificate and the key do not belong together"],
        ),
        (
            {
                "kafka__security_protocol": "SSL",
                "kafka__ca_file": "ca.pem",
                "kafka__certificate_file": "mine.pem",
                "kafka__key_file": "mine.key",
            },
            [],
        ),
    ],
)
def test_the_settings_of_kafka_fit_each_other(
    config: Path, files: Path, given: dict[str, object], expected: list[str]
) -> None:
    assert mistakes(config, **given) == expected


def test_files_in_addresses_are_looked_into(config: Path, files: Path) -> None:
    found = mistakes(
        config,
        stores__ledger__dsn=f"postgresql://db/app?sslmode=verify-full&sslrootcert={files}/junk.pem",
        stores__catalog__uri=f"mongodb://m1/?tls=true&tlsCAFile={files}/gone.pem",
    )
    assert found == [
        "stores.ledger.dsn: sslrootcert: the file holds no certificates in PEM",
        "stores.catalog.uri: tlsCAFile: the file cannot be read: No such file or directory",
    ]
    assert not mistakes(
        config,
        stores__ledger__dsn=f"postgresql://db/app?sslmode=verify-full&sslrootcert={files}/ca.pem"
        f"&sslcert={files}/mine.pem&sslkey={files}/mine.key",
        stores__catalog__uri=f"mongodb://m1/?tls=true&tlsCAFile={files}/ca.pem"
        f"&tlsCertificateKeyFile={files}/pair.pem",
    )


def test_verifying_needs_authorities(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PGSSLROOTCERT", raising=False)
    assert mistakes(config, stores__ledger__dsn="postgresql://db/app?sslmode=verify-full") == [
        "stores.ledger.dsn: needs sslrootcert=…, the authorities to trust, with its sslmode"
    ]


def test_a_mode_that_the_driver_does_not_know_is_a_mistake(config: Path) -> None:
    (found,) = mistakes(config, stores__ledger__dsn="postgresql://127.0.0.1/app?sslmode=full")
    assert found.startswith("stores.ledger.dsn: has an sslmode that is none of disable, allow,")


# --- what drivers are given ---------------------------------------------------------------------


def test_a_context_reads_its_files_for_every_connection(files: Path) -> None:
    mine = TlsFiles(files / "ca.pem", files / "mine.pem", files / "mine.key")
    context = KafkaSecurity("SSL", mine.ca, mine.certificate, mine.key).options()["ssl_context"]
    first = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="broker")
    assert first.context.verify_mode is ssl.CERT_REQUIRED
    assert first.context.check_hostname
    assert first.context.minimum_version is ssl.TLSVersion.TLSv1_2
    (before,) = first.context.get_ca_certs()

    trustme.CA().cert_pem.write_to_path(str(files / "ca.pem"))
    second = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="broker")
    (after,) = second.context.get_ca_certs()
    assert after["serialNumber"] != before["serialNumber"]

    (files / "mine.key").write_text("half written")
    with pytest.raises(ssl.SSLError):
        context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="broker")


async def test_a_token_is_read_each_time_and_kept_secret(tmp_path: Path) -> None:
    file, told = tmp_path / "token", list[str]()
    file.write_text("first\n")
    tokens = TokenFile(file, told.append)
    assert await tokens.token() == "first"
    file.write_text("second")
    assert await tokens.token() == "second"
    assert told == ["first", "second"]
    for broken in ("", "\n", "two\nlines", "not \x00 printable", "wörd"):
        file.write_text(broken)
        with pytest.raises(TokenUnusable):
            await tokens.token()


def test_a_learned_secret_is_masked_until_newer_ones_have_come(config: Path) -> None:
    settings = load_settings(config, {}, {})
    settings.keep_secret("token-of-today")
    assert settings.redact("it is token-of-today") == "it is ***"
    for number in range(8):
        settings.keep_secret(f"token-of-tomorrow-{number}")
    assert settings.redact("token-of-tomorrow-7") == "***"
    assert settings.redact("token-of-tomorrow-0") == "***"


def test_passwords_of_kafka_are_secrets(config: Path) -> None:
    settings = load_settings(
        config,
        {
            "kafka.security_protocol": "SASL_SSL",
            "kafka.sasl_mechanism": "PLAIN",
            "kafka.sasl_username": "app",
            "kafka.sasl_password": "hunter/2",
        },
        {},
    )
    assert settings.redact("hunter/2 and hunter%2F2") == "*** and ***"
    shown = f"{settings!r} {settings.model_dump_json()} {KafkaSecurity(sasl_password='hunter/2')}"
    assert "hunter" not in shown
    options = kafka_options(settings)
    assert options["sasl_plain_password"] == "hunter/2"


def test_the_client_package_refuses_plaintext_too() -> None:
    with pytest.raises(PlaintextRefused, match="allow_plaintext=True"):
        CoordinatorClient("127.0.0.1:9092,broker:9092")
    CoordinatorClient("broker:9092", allow_plaintext=True)
    CoordinatorClient("127.0.0.1:9092")
    CoordinatorClient("broker:9092", security=KafkaSecurity("SSL"))
    CoordinatorClient("broker:9092", kafka_options={"security_protocol": "SSL"})


def test_a_failed_handshake_is_found_behind_what_the_driver_made_of_it() -> None:
    error = ConnectionError("broken")
    error.__cause__ = ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number")
    assert handshake_sentence(error) is not None
    assert handshake_sentence(ConnectionRefusedError("nobody")) is None
