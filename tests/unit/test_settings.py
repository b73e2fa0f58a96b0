"""Loading the settings: sources and their order, every mistake at once with its place, secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import dedent

import pytest

from coordinator.domain.errors import ConfigurationInvalid
from coordinator.settings import MongodbStore, PostgresqlStore, load_settings
from coordinator.settings.reference import reference_page
from coordinator.settings.sources import known_places, variable_of

SMALL = """
    entities = "entities.toml"
    [journal]
    store = "ledger"
    [kafka]
    bootstrap_servers = "127.0.0.1:9092"
    [stores.ledger]
    kind = "postgresql"
    dsn = "postgresql://app:s3cr3t%2Fp%40ss@db:5432/app"
    allow_plaintext = true
    [stores.catalog]
    kind = "mongodb"
    uri = "mongodb://u:0ther%20w%C3%B6rd@m1:27017,m2:27017/?replicaSet=rs0"
    database = "app"
    allow_plaintext = true
"""

Write = Callable[[str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(text: str) -> Path:
        path = tmp_path / "coordinator.toml"
        path.write_text(dedent(text))
        return path

    return write


def mistakes_of(
    path: Path,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
) -> list[str]:
    """Load, which must fail; give the mistakes without the file's folder."""
    with pytest.raises(ConfigurationInvalid) as caught:
        load_settings(path, overrides or {}, environ or {})
    return [each.replace(f"{path.parent}/", "") for each in caught.value.mistakes]


def test_a_small_file_gets_the_documented_defaults(write: Write) -> None:
    settings = load_settings(write(SMALL), {}, {})
    assert settings.entities == write(SMALL).parent / "entities.toml"
    assert settings.kafka.group_id == "coordinator"
    assert settings.topics.units == "coordinator.units"
    assert settings.topics.outcomes == "coordinator.outcomes"
    assert settings.topics.changes == "coordinator.changes.{entity}"
    assert settings.topics.dead_letters == "coordinator.units-dlt"
    assert (settings.topics.partitions, settings.topics.replication_factor) == (4, 1)
    assert settings.topics.reply_to == ()
    assert settings.units.timeout_ms == 30_000
    assert settings.units.max_bytes == 262_144
    assert settings.units.retention_days == 7
    assert settings.units.undo_retention_seconds == 600
    assert settings.worker.lease_ttl_seconds == 15
    assert settings.http.listen == "127.0.0.1:8080"
    assert (settings.log.format, settings.log.level) == ("json", "info")
    assert settings.changes.tombstones is False
    assert settings.journal.migrate is True
    ledger, catalog = settings.stores["ledger"], settings.stores["catalog"]
    assert isinstance(ledger, PostgresqlStore)
    assert isinstance(catalog, MongodbStore)
    assert catalog.driver == "motor"


def test_every_start_is_a_new_worker(write: Write) -> None:
    path = write(SMALL)
    names = {load_settings(path, {}, {}).worker.name for _ in range(8)}
    assert len(names) > 1


def test_the_shipped_configuration_is_valid() -> None:
    settings = load_settings(Path("config/coordinator.toml"), {}, {})
    assert settings.entities == Path("config/entities.toml")


def test_what_the_shipped_configuration_comments_out_is_the_default(tmp_path: Path) -> None:
    shipped = Path("config/coordinator.toml").read_text()
    own = re.compile(r"^# (?=(?!name|dsn)\w+ = )", re.MULTILINE)
    assert len(own.findall(shipped)) > 20
    path = tmp_path / "coordinator.toml"
    path.write_text(shipped)
    defaults = load_settings(path, {"worker.name": "one"}, {})
    path.write_text(own.sub("", shipped))
    assert load_settings(path, {"worker.name": "one"}, {}) == defaults


def test_the_reference_page_is_that_of_the_models() -> None:
    """`python -m coordinator.settings > docs/reference/configuration.md` brings it up to date."""
    assert Path("docs/reference/configuration.md").read_text() == reference_page()


def test_the_reference_page_tells_every_setting_and_its_variable() -> None:
    page = reference_page()
    for place in known_places():
        assert f"| `{place[-1]}` |" in page
        assert f"`{variable_of(place)}`" in page


def test_settings_cannot_be_changed(write: Write) -> None:
    settings = load_settings(write(SMALL), {}, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.kafka.group_id = "other"  # type: ignore[misc]


# --- sources ------------------------------------------------------------------------------------


def test_the_later_source_wins(write: Write, tmp_path: Path) -> None:
    path = write(SMALL.replace("[kafka]", '[kafka]\n    group_id = "file"'))
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    environ = {"COORDINATOR_SECRETS_DIR": str(secrets)}
    assert load_settings(path, {}, environ).kafka.group_id == "file"
    (secrets / "kafka__group_id").write_text("secret\n")
    assert load_settings(path, {}, environ).kafka.group_id == "secret"
    environ["COORDINATOR_KAFKA__GROUP_ID"] = "environment"
    assert load_settings(path, {}, environ).kafka.group_id == "environment"
    overrides = {"kafka.group_id": "override"}
    assert load_settings(path, overrides, environ).kafka.group_id == "override"


def test_the_configuration_is_named_by_the_environment(write: Write) -> None:
    path = write(SMALL)
    settings = load_settings(None, {}, {"COORDINATOR_CONFIG": str(path)})
    assert settings.entities == path.parent / "entities.toml"


def test_texts_are_read_as_the_type_of_their_setting(write: Write) -> None:
    settings = load_settings(
        write(SMALL),
        {"topics.create": "false", "batch.max_units": "20", "worker.lease_ttl_seconds": "2.5"},
        {
            "COORDINATOR_TOPICS__REPLY_TO": "a.replies, b.replies",
            "COORDINATOR_CHANGES__TOMBSTONES": "true",
            "COORDINATOR_UNITS__TIMEOUT_MS": "100",
            "COORDINATOR_STORES__LEDGER__POOL_MAX_SIZE": "7",
            "COORDINATOR_ENTITIES": "/etc/entities",
        },
    )
    assert settings.topics.reply_to == ("a.replies", "b.replies")
    assert settings.topics.create is False
    assert settings.changes.tombstones is True
    assert settings.units.timeout_ms == 100
    assert settings.batch.max_units == 20
    assert settings.worker.lease_ttl_seconds == 2.5
    assert settings.entities == Path("/etc/entities")
    ledger = settings.stores["ledger"]
    assert isinstance(ledger, PostgresqlStore)
    assert ledger.pool_max_size == 7


def test_a_list_may_be_json(write: Write) -> None:
    environ = {"COORDINATOR_TOPICS__REPLY_TO": '["a.replies"]'}
    assert load_settings(write(SMALL), {}, environ).topics.reply_to == ("a.replies",)


def test_a_variable_may_name_the_file_that_holds_the_value(write: Write, tmp_path: Path) -> None:
    (tmp_path / "dsn").write_text("postgresql://app:fromfile@db/app\n")
    environ = {"COORDINATOR_STORES__LEDGER__DSN_FILE": str(tmp_path / "dsn")}
    ledger = load_settings(write(SMALL), {}, environ).stores["ledger"]
    assert isinstance(ledger, PostgresqlStore)
    assert ledger.dsn.get_secret_value() == "postgresql://app:fromfile@db/app"


def test_a_store_is_found_whatever_the_case_of_its_name(write: Write) -> None:
    path = write(SMALL.replace("ledger", "Main-Ledger"))
    environ = {"COORDINATOR_STORES__MAIN_LEDGER__LOCK_TIMEOUT_MS": "99"}
    ledger = load_settings(path, {}, environ).stores["Main-Ledger"]
    assert isinstance(ledger, PostgresqlStore)
    assert ledger.lock_timeout_ms == 99


def test_variables_of_others_are_left_alone(write: Write) -> None:
    environ = {
        "COORDINATOR_PORT": "tcp://10.0.0.1:8080",
        "COORDINATOR_SERVICE_HOST": "10.0.0.1",
        "COORDINATOR_HEALTH_URL": "http://127.0.0.1:8080/livez",
        "COORDINATOR_TEST_POSTGRES": "postgresql://x",
    }
    assert load_settings(write(SMALL), {}, environ).kafka.group_id == "coordinator"


def test_mistakes_in_other_sources_name_them(write: Write, tmp_path: Path) -> None:
    secrets = tmp_path / "secrets"
    secrets.mkdir()
    (secrets / "stores__ledger__dns").write_text("x")
    (secrets / ".hidden").write_text("x")
    found = mistakes_of(
        write(SMALL),
        {"kafka.grupid": "x", "batch.max_units": "many"},
        {
            "COORDINATOR_SECRETS_DIR": str(secrets),
            "COORDINATOR_KAKFA__GROUP_ID": "x",
            "COORDINATOR_UNITS__TIMEOUT_MS": "0",
            "COORDINATOR_UNITS__MAX_BYTES": "12k",
            "COORDINATOR_KAFKA": "x",
            "COORDINATOR_TOPICS__CREATE": "perhaps",
            "COORDINATOR_STORES__LEDGER__DSN": "postgresql://db/app",
            "COORDINATOR_STORES__LEDGER__DSN_FILE": str(tmp_path / "missing"),
            "COORDINATOR_STORES__CATALOG__URI_FILE": str(tmp_path / "missing"),
        },
    )
    assert found == [
        "secrets/stores__ledger__dns: names no setting; do you mean dsn?",
        "COORDINATOR_KAFKA: names no setting",
        "COORDINATOR_KAKFA__GROUP_ID: names no setting; do you mean kafka.group_id?",
        "COORDINATOR_STORES__CATALOG__URI_FILE: the file cannot be read: No such file or directory",
        "COORDINATOR_STORES__LEDGER__DSN_FILE: COORDINATOR_STORES__LEDGER__DSN is set as well; "
        "give one of them",
        "COORDINATOR_TOPICS__CREATE: must be true or false",
        "COORDINATOR_UNITS__MAX_BYTES: must be a whole number",
        "command line: kafka.grupid: names no setting; do you mean kafka.group_id?",
        "command line: batch.max_units: must be a whole number",
        "COORDINATOR_UNITS__TIMEOUT_MS: must be at least 1",
        "entities.toml: cannot be read: No such file or directory",
    ]


def test_a_secrets_folder_that_is_named_must_be_there(write: Write, tmp_path: Path) -> None:
    environ = {"COORDINATOR_SECRETS_DIR": str(tmp_path / "nowhere")}
    assert mistakes_of(write(SMALL), {}, environ)[0] == (
        "COORDINATOR_SECRETS_DIR: nowhere cannot be read: No such file or directory"
    )


# --- mistakes -----------------------------------------------------------------------------------


def test_every_mistake_is_told_at_once_with_its_place(write: Write) -> None:
    path = write(
        """
        entities = "entities.toml"
        speed = 3
        [journal]
        store = "catalog"
        [kafka]
        group_id = ""
        grup_id = "x"
        [topics]
        changes = "coordinator.changes"
        outcomes = "a b"
        reply_to = ["fine", "not fine", 3]
        partitions = 0
        [units]
        timeout_ms = "30000"
        retention_days = true
        [worker]
        name = "two words"
        lease_ttl_seconds = 1
        [http]
        listen = "8080"
        [log]
        level = "loud"
        [stores.ledger]
        kind = "postgresql"
        dsn = "mysql://app:hunter2@db/app"
        [stores.catalog]
        kind = "mongodb"
        uri = "mongodb://db"
        driver = "mongoose"
        [stores.cache]
        kind = "redis"
        [stores.empty]
        """
    )
    (path.parent / "entities.toml").write_text('[thing]\nstore = "nowhere"\n')
    assert mistakes_of(path) == [
        "coordinator.toml: speed: is not known",
        "coordinator.toml: kafka.bootstrap_servers: is missing",
        "coordinator.toml: kafka.group_id: must not be empty",
        "coordinator.toml: kafka.grup_id: is not known; do you mean group_id?",
        "coordinator.toml: topics.outcomes: must be a Kafka topic: 1 to 249 letters, digits, "
        "dots, _ and -",
        "coordinator.toml: topics.changes: must hold {entity} once, since every entity has its "
        "own topic",
        "coordinator.toml: topics.reply_to.1: must be a Kafka topic: 1 to 249 letters, digits, "
        "dots, _ and -",
        "coordinator.toml: topics.reply_to.2: must be a string",
        "coordinator.toml: topics.partitions: must be at least 1",
        "coordinator.toml: units.timeout_ms: must be a whole number",
        "coordinator.toml: units.retention_days: must be a number",
        "coordinator.toml: worker.name: must be 1 to 63 printable characters without blanks",
        "coordinator.toml: worker.lease_ttl_seconds: must be at least 2",
        'coordinator.toml: http.listen: must be host:port, such as "127.0.0.1:8080"',
        "coordinator.toml: log.level: must be 'debug', 'info', 'warning' or 'error'",
        "coordinator.toml: stores.ledger.dsn: must begin with postgresql://",
        "coordinator.toml: stores.catalog.database: is missing",
        "coordinator.toml: stores.catalog.driver: must be 'motor' or 'pymongo'",
        'coordinator.toml: stores.cache.kind: must be "postgresql" or "mongodb"',
        'coordinator.toml: stores.empty.kind: is missing; it must be "postgresql" or "mongodb"',
        "coordinator.toml: journal.store: must name a postgresql store",
        "entities.toml: thing.key: is missing",
        "entities.toml: thing.fields: is missing",
        "entities.toml: thing.store: names no configured store",
    ]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            ('store = "ledger"', ""),
            "journal: needs store, the name of a postgresql store, or dsn",
        ),
        (
            ('store = "ledger"', 'store = "ledger"\n    dsn = "postgresql://db/journal"'),
            "journal.store: journal.dsn is given as well; give one of them",
        ),
        (
            ('store = "ledger"', 'store = "ledgr"'),
            "journal.store: names no store; do you mean ledger?",
        ),
        (
            ('store = "ledger"', 'dsn = "postgresql://other@db/app"'),
            'journal.dsn: is the database of stores.ledger; write journal.store = "ledger" instead',
        ),
        (
            ("[kafka]", '[topics]\n    outcomes = "coordinator.units"\n    [kafka]'),
            "topics.outcomes: is the same topic as topics.units",
        ),
        (
            ("[kafka]", '[topics]\n    reply_to = ["coordinator.units"]\n    [kafka]'),
            "topics.reply_to: holds topics.units, where outcomes must not go",
        ),
        (
            ("[kafka]", "[backlog]\n    max_units = 10\n    [kafka]"),
            "backlog.max_units: must not be less than batch.max_units",
        ),
        (
            (
                "[kafka]",
                "[units]\n    max_bytes = 2000000\n"
                "    [backlog]\n    max_bytes = 1100000\n    [kafka]",
            ),
            "backlog.max_bytes: must not be less than units.max_bytes",
        ),
        (
            ("[kafka]", "[units]\n    max_bytes = 40000000\n    [kafka]"),
            "kafka.unpacked_batch_max_bytes: must not be less than units.max_bytes",
        ),
        (
            ("[kafka]", "[worker]\n    lanes = 10\n    [kafka]"),
            "stores.ledger.pool_max_size: must be more than worker.lanes, each of which needs a "
            "connection",
        ),
        (
            ("[stores.ledger]", "[stores.ledger]\n    lock_timeout_ms = 6000"),
            "stores.ledger.lock_timeout_ms: must be at most a third of worker.lease_ttl_seconds",
        ),
        (
            ("[kafka]", "[units]\n    undo_retention_seconds = 14\n    [kafka]"),
            "units.undo_retention_seconds: must not be less than worker.lease_ttl_seconds",
        ),
        (
            (
                "[stores.catalog]",
                '[stores.twin]\n    kind = "postgresql"\n    dsn = "postgresql://x@DB/app"\n'
                "    [stores.catalog]",
            ),
            "stores.twin: is the same database as stores.ledger; make them one store",
        ),
        (("[stores.ledger]", '[stores."a b"]'), "a store's name is 1 to 63 letters"),
        (("[kafka]", "[kafka]\n    x = 1"), "kafka.x: is not known"),
        (('"127.0.0.1:9092"', '"127.0.0.1"'), "kafka.bootstrap_servers: must be host:port"),
        (
            ("s3cr3t%2Fp%40ss@db:5432", "s3cr3t/p#ss@db:5432"),
            "stores.ledger.dsn: holds a # or @ that must be URL-encoded",
        ),
        (("db:5432", "db:port"), "stores.ledger.dsn: has a port that is no number"),
        (("mongodb://u", "http://u"), "stores.catalog.uri: must begin with mongodb://"),
    ],
)
def test_relations_and_addresses(write: Write, change: tuple[str, str], expected: str) -> None:
    path = write(SMALL.replace(*change, 1))
    (path.parent / "entities.toml").write_text("")
    assert any(expected in mistake for mistake in mistakes_of(path)), mistakes_of(path)


def test_a_file_that_is_no_toml(write: Write) -> None:
    assert mistakes_of(write("[kafka\n"))[0].startswith("coordinator.toml: is not TOML: ")


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    assert mistakes_of(tmp_path / "coordinator.toml") == [
        "coordinator.toml: cannot be read: No such file or directory"
    ]


# --- secrets ------------------------------------------------------------------------------------


def test_secrets_are_in_no_representation(write: Write) -> None:
    settings = load_settings(write(SMALL), {}, {})
    shown = f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    assert "s3cr3t" not in shown
    assert "0ther" not in shown


@pytest.mark.parametrize(
    "form",
    [
        "s3cr3t/p@ss",
        "s3cr3t%2Fp%40ss",
        "s3cr3t%2fp%40ss",
        "s3cr3t/p%40ss",
        "0ther wörd",
        "0ther%20w%C3%B6rd",
        "0ther+w%c3%b6rd",
        "0ther w\\u00f6rd",
        "0ther w\\xf6rd",
        "0ther w\\\\u00f6rd",
        "0ther%2520w%25C3%25B6rd",
        "s3cr3t%252Fp%2540ss",
        "s3cr3t%2Fp@ss",
        "s3cr3t\\/p@ss",
    ],
)
def test_every_form_of_a_password_is_masked(write: Write, form: str) -> None:
    settings = load_settings(write(SMALL), {}, {})
    assert settings.redact(f"cannot log in with {form}: refused") == (
        "cannot log in with ***: refused"
    )


def test_a_short_password_is_masked_as_a_word_only(write: Write) -> None:
    path = write(SMALL.replace("s3cr3t%2Fp%40ss", "app"))
    settings = load_settings(path, {}, {})
    assert settings.redact("app: cannot apply app@db:app") == "***: cannot apply ***@db:***"


def test_mistakes_do_not_repeat_secrets(write: Write) -> None:
    path = write(
        SMALL.replace("postgresql://app:s3cr3t%2Fp%40ss@db", "postgresql:/app:s3cr3t@d@b")
        + '    "mongodb://u:hidden@m" = "x"\n    password = "plainsecret"\n'
    )
    found = " ".join(mistakes_of(path, {}, {"COORDINATOR_JOURNAL__DSN": "envsecret"}))
    assert "s3cr3t" not in found
    assert "hidden" not in found
    assert "plainsecret" not in found
    assert "envsecret" not in found
    assert "COORDINATOR_JOURNAL__DSN: must begin with postgresql://" in found


def test_secrets_lists_decoded_passwords(write: Write) -> None:
    settings = load_settings(write(SMALL), {}, {})
    assert {"s3cr3t/p@ss", "0ther wörd"} <= set(settings.secrets())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("kafka = 3\n", "coordinator.toml: kafka: must be a table"),
        ("stores = []\n", "coordinator.toml: stores: must be a table of stores"),
        ("[stores]\nledger = 3\n", "coordinator.toml: stores.ledger: must be a table"),
        ("[stores]\n", "coordinator.toml: stores: names no store; at least one is needed"),
        ("entities = 3\n", "coordinator.toml: entities: must be a string, the path of a file or"),
        (
            "[worker]\nlease_ttl_seconds = nan\n",
            "coordinator.toml: worker.lease_ttl_seconds: must be a finite number",
        ),
    ],
)
def test_shapes_that_are_wrong(write: Write, text: str, expected: str) -> None:
    found = mistakes_of(write(text))
    assert any(mistake.startswith(expected) for mistake in found), found
    assert "coordinator.toml: kafka.bootstrap_servers: is missing" in found or "kafka = " in text
