"""Intakes in the configuration: their defaults, and every mistake at once with its place."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent, indent

import pytest

from coordinator import signatures
from coordinator.bootstrap.intakes import intake_rules, judge_grants
from coordinator.bootstrap.topics import topic_names
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.domain.operation import OperationKind
from coordinator.mapping import load_entities
from coordinator.settings import Settings, load_settings
from tests.mapping_samples import MAPPING

BASE = """
    [journal]
    store = "ledger"
    [kafka]
    bootstrap_servers = "127.0.0.1:9092"
    [stores.ledger]
    kind = "postgresql"
    dsn = "postgresql://app@127.0.0.1:5432/app"
"""
ENTITIES = """
    [account]
    store = "ledger"
    table = "accounts"
    key = "id"
    operations = ["insert", "update", "check"]
    [account.fields]
    id = { type = "integer" }
    balance = { type = "decimal" }
    status = { type = "string", nullable = true }
"""
PUBLIC_KEYS = [
    b64encode(signatures.public_key_of(bytes([number]) * 32)).decode() for number in (1, 2, 3)
]

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(intakes: str, *, more: str = "", entities: str = ENTITIES) -> Settings:
        text = dedent(more) + dedent(BASE) + dedent(intakes)
        (tmp_path / "coordinator.toml").write_text(text)
        (tmp_path / "entities.toml").write_text(dedent(entities))
        settings = load_settings(tmp_path / "coordinator.toml", {}, {})
        load_entities(settings)
        return settings

    return load


def mistakes(load: Load, tmp_path: Path, intakes: str, **parts: str) -> list[str]:
    with pytest.raises(ConfigurationInvalid) as caught:
        load(intakes, **parts)
    return [each.replace(f"{tmp_path}/coordinator.toml: ", "") for each in caught.value.mistakes]


def test_without_intakes_one_topic_may_do_everything(load: Load) -> None:
    settings = load("", more='[topics]\nunits = "u"\nreply_to = ["r"]\n')
    assert settings.intake == ()
    (alone,) = settings.intakes
    assert (alone.topic, alone.grants, alone.reply_to, alone.signed) == ("u", None, ("r",), None)
    rules = intake_rules(settings, MAPPING)["u"]
    assert rules.reply_topics == {"r"}
    assert rules.signed is None
    assert (rules.authority.readers, rules.authority.cancels) == (None, None)


def test_an_intake_is_bounded_by_what_it_says(load: Load) -> None:
    settings = load("""
        [[intake]]
        topic = "a"
        reply_to = ["ra"]
        grants = [{ entity = "account", operations = ["update"], fields = ["balance"] }]
        [[intake]]
        topic = "b"
        grants = "all"
        cancels = ["a"]
        unit_id_prefix = "b-"
    """)
    rules = intake_rules(settings, MAPPING)
    assert set(rules) == {"a", "b"}
    readers = rules["a"].authority.readers
    assert readers is not None
    reader = readers["account"].acting(OperationKind.UPDATE)
    assert reader is not None
    assert set(reader.writable) == {"balance"}
    assert rules["b"].authority.readers is None
    assert rules["a"].authority.cancels == frozenset({"a"})
    assert rules["b"].authority.cancels == frozenset({"a", "b"})
    assert (rules["a"].reply_topics, rules["b"].reply_topics) == (frozenset({"ra"}), frozenset())
    assert rules["b"].authority.unit_id_prefix == "b-"
    names = topic_names(settings, MAPPING)
    assert names[:3] == ["a", "b", "coordinator.outcomes"]
    assert "ra" in names
    assert "coordinator.units" not in names


def test_keys_are_read_from_files_and_from_the_file(load: Load, tmp_path: Path) -> None:
    raw = signatures.public_key_of(b"\x02" * 32)
    (tmp_path / "two.pem").write_text(signatures.public_pem(raw))
    settings = load(f"""
        [[intake]]
        topic = "a"
        grants = [{{ entity = "account", operations = ["update", "check"] }}]
        [intake.signed]
        audience = "production"
        [[intake.signed.keys]]
        id = "one"
        public_key = "{PUBLIC_KEYS[0]}"
        [[intake.signed.keys]]
        id = "two"
        file = "two.pem"
        grants = [{{ entity = "account", operations = ["check"], fields = ["status"] }}]
    """)
    rules = intake_rules(settings, MAPPING)["a"]
    signed = rules.signed
    assert signed is not None
    assert (signed.audience, signed.max_age_seconds, signed.skew_seconds) == (
        "production",
        3600,
        30,
    )
    assert {name: b64encode(key.public_key).decode() for name, key in signed.keys.items()} == {
        "one": PUBLIC_KEYS[0],
        "two": PUBLIC_KEYS[1],
    }
    assert signed.keys["one"].authority == rules.authority
    readers = signed.keys["two"].authority.readers
    assert readers is not None
    assert readers["account"].acting(OperationKind.UPDATE) is None
    check = readers["account"].acting(OperationKind.CHECK)
    assert check is not None
    assert check.withholds("balance")


def test_the_topic_is_the_audience_by_default(load: Load) -> None:
    settings = load(f"""
        [[intake]]
        topic = "a"
        grants = "all"
        signed = {{ keys = [{{ id = "one", public_key = "{PUBLIC_KEYS[0]}" }}] }}
    """)
    signed = intake_rules(settings, MAPPING)["a"].signed
    assert signed is not None
    assert signed.audience == "a"


def test_every_mistake_in_intakes_is_told_at_once(load: Load, tmp_path: Path) -> None:
    one, two, three = PUBLIC_KEYS
    found = mistakes(
        load,
        tmp_path,
        f"""
        [[intake]]
        topic = "a b"
        grants = "some"
        [[intake]]
        topic = "coordinator.outcomes"
        grants = [
            {{ entity = "acount", operations = ["update"] }},
            {{ entity = "account", operations = ["update", "delete"], fields = ["balanc"] }},
            {{ entity = "account", operations = ["update"], fields = [] }},
        ]
        reply_to = ["coordinator.units-dlt", "b"]
        [[intake]]
        topic = "b"
        grants = [{{ entity = "account", operations = ["check"], fields = ["status"] }}]
        [intake.signed]
        max_age_seconds = 604800
        [[intake.signed.keys]]
        id = "one"
        public_key = "{one}"
        grants = [{{ entity = "account", operations = ["check"] }}]
        [[intake.signed.keys]]
        id = "one"
        public_key = "{two}"
        grants = [{{ entity = "account", operations = ["update"], fields = ["status"] }}]
        [[intake.signed.keys]]
        id = "three"
        public_key = "{one}"
        [[intake.signed.keys]]
        id = "four"
        [[intake.signed.keys]]
        id = "five"
        public_key = "AAAA"
        [[intake.signed.keys]]
        id = "six"
        file = "nowhere.pem"
        [[intake.signed.keys]]
        id = "seven"
        public_key = "{three}"
        grants = [{{ entity = "nobody", operations = ["check"], fields = ["x"] }}]
        [[intake]]
        topic = "b"
        grants = "all"
        """,
        more='[topics]\nunits = "coordinator.units"\nreply_to = ["r"]\n',
    )
    nowhere = tmp_path / "nowhere.pem"
    assert sorted(found) == sorted(
        [
            "intake.0.topic: must be a Kafka topic: 1 to 249 letters, digits, dots, _ and -",
            'intake.0.grants: must be "all" or an array of grants',
            "intake.2.signed.keys.3: needs public_key or file, one of them",
            "intake.2.signed.keys.4.public_key: must be an Ed25519 public key: PEM, or its 32 "
            "bytes in base64",
            f"intake.2.signed.keys.5.file: {nowhere} cannot be read: No such file or directory",
            "topics.units: is not read beside [[intake]] tables; name it in one of them",
            "topics.reply_to: is not used beside [[intake]] tables; each has its own",
            "intake.1.topic: is the same topic as topics.outcomes",
            "intake.1.reply_to: holds topics.dead_letters, where outcomes must not go",
            "intake.1.reply_to: holds the topic of intake.2, where outcomes must not go",
            "intake.1.grants.1.fields: delete removes whole records; grant it by itself, without "
            "fields",
            "intake.1.grants.2.fields: is empty; only a check can do without any field",
            "intake.2.signed.keys.0.grants.0: goes beyond the grants of its intake in check on "
            "account",
            "intake.2.signed.keys.1.id: is the id of keys.0 as well",
            "intake.2.signed.keys.1.grants.0: goes beyond the grants of its intake in update on "
            "account",
            "intake.2.signed.keys.2: is the same key as keys.0",
            "intake.2.signed.keys.6.grants.0: goes beyond the grants of its intake in check on "
            "nobody",
            "intake.2.signed.max_age_seconds: with twice skew_seconds must be less than "
            "units.retention_days: a unit could be replayed after its id is forgotten",
            "intake.3.topic: is the topic of intake.2 as well; put their grants together",
            "intake.1.grants.0.entity: names no declared entity; do you mean account?",
            "intake.1.grants.1.operations: the entity account does not allow delete",
            "intake.1.grants.1.fields: account has no field balanc; do you mean balance?",
            "intake.2.signed.keys.6.grants.0.entity: names no declared entity",
        ]
    )


def test_grants_are_judged_where_all_else_is_right(load: Load, tmp_path: Path) -> None:
    assert mistakes(
        load,
        tmp_path,
        """
        [[intake]]
        topic = "a"
        grants = [{ entity = "account", operations = ["check", "delete"] }]
        """,
    ) == ["intake.0.grants.0.operations: the entity account does not allow delete"]


@pytest.mark.parametrize(
    ("table", "mistake"),
    [
        ('topic = "a"', "intake.0.grants: is missing"),
        ('topic = "a"\ngrants = "all"\nsigned = { keys = [] }',
         "intake.0.signed.keys: must not be empty"),
        ('topic = "a"\ngrants = "all"\ngrant = 1', "intake.0.grant: is not known; do you mean"),
        ('topic = "a"\ngrants = [{ entity = "account", operations = [] }]',
         "intake.0.grants.0.operations: must not be empty"),
        ('topic = "a"\ngrants = [{ entity = "account", operations = ["drop"] }]',
         "intake.0.grants.0.operations.0: must be 'insert'"),
        ('topic = "a"\ngrants = "all"\nunit_id_prefix = "a b"',
         "intake.0.unit_id_prefix: must be at most 64 printable"),
        ('topic = "a"\ngrants = "all"\n[intake.signed]\naudience = "a b"\n'
         'keys = [{ id = "a b" }]', "intake.0.signed.audience: must be 1 to 249"),
    ],
)  # fmt: skip
def test_the_shape_of_an_intake_is_judged(
    load: Load, tmp_path: Path, table: str, mistake: str
) -> None:
    found = mistakes(load, tmp_path, "[[intake]]\n" + indent(table, ""))
    assert any(each.startswith(mistake) for each in found), found


def test_two_intakes_must_not_be_one_audience(load: Load, tmp_path: Path) -> None:
    """Else a unit that is signed for one could be replayed on the other, with its rights."""
    keys = f'keys = [{{ id = "one", public_key = "{PUBLIC_KEYS[0]}" }}]'
    first = f'[[intake]]\ntopic = "a"\ngrants = "all"\nsigned = {{ {keys} }}\n'
    found = mistakes(
        load,
        tmp_path,
        f'{first}[[intake]]\ntopic = "b"\ngrants = "all"\nsigned = {{ audience = "a", {keys} }}\n',
    )
    assert found == [
        "intake.1.signed.audience: is that of intake.0 as well: what is signed for one could be "
        "replayed on the other"
    ]


def test_an_intake_must_be_an_array_of_tables(load: Load, tmp_path: Path) -> None:
    assert mistakes(load, tmp_path, "", more="intake = 5\n") == [
        "intake: must be an array of tables: [[intake]]"
    ]


def test_a_change_topic_must_not_be_an_intake(load: Load, tmp_path: Path) -> None:
    (found,) = mistakes(
        load, tmp_path, '[[intake]]\ntopic = "coordinator.changes.account"\ngrants = "all"\n'
    )
    assert found.endswith("its topic coordinator.changes.account is intake.0 as well")


def test_an_insert_that_could_never_succeed_is_refused_at_start(load: Load) -> None:
    settings = load("""
        [[intake]]
        topic = "a"
        grants = [{ entity = "account", operations = ["insert"], fields = ["status"] }]
    """)
    with pytest.raises(ConfigurationInvalid) as caught:
        judge_grants(settings, MAPPING)
    assert caught.value.mistakes == (
        "intake.0.grants.0.fields: an insert of account must give balance, which is not granted",
    )
