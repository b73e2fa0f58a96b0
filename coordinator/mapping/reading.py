"""Reading the entities' files into declarations, every mistake at once, each with its place.

Owns files, and what entities mean together: names, references, tables, topics. What one entity
says by itself is judged in `entity_tables`, what the live catalogs say in `resolve`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

from coordinator.domain.entity import Reference, StoreKind
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.domain.operation import OperationKind
from coordinator.mapping.declaration import Declaration
from coordinator.mapping.entity_tables import ReadEntity
from coordinator.mapping.grants import ConfiguredIntake, DeclaredEntity, grant_mistakes
from coordinator.toml_reading import Place, dotted, hint, read_toml


class ConfiguredStore(Protocol):
    """What is asked of a store's settings."""

    @property
    def kind(self) -> str:
        """``postgresql`` or ``mongodb``."""


class ConfiguredTopics(Protocol):
    """What is asked of the topics' settings."""

    @property
    def units(self) -> str:
        """Where units come from."""

    @property
    def outcomes(self) -> str:
        """Where outcomes go."""

    @property
    def dead_letters(self) -> str:
        """Where dead letters go."""

    @property
    def changes(self) -> str:
        """Where change events go, with ``{entity}`` in it."""


class Configured(Protocol):
    """What is asked of the settings."""

    @property
    def entities(self) -> Path:
        """The mapping's file or folder."""

    @property
    def stores(self) -> Mapping[str, ConfiguredStore]:
        """The stores by name."""

    @property
    def topics(self) -> ConfiguredTopics:
        """The topics."""

    @property
    def intake(self) -> Sequence[ConfiguredIntake]:
        """The intakes; none means that all comes from the topic of units."""


def load_entities(settings: Configured) -> tuple[Declaration, ...]:
    """Read every declared entity; raise `ConfigurationInvalid` with all mistakes."""
    kinds = {name: StoreKind(store.kind) for name, store in settings.stores.items()}
    reader = _Reader(kinds)
    reader.read(settings.entities)
    reader.judge_topics(settings.topics, settings.intake)
    reader.judge_grants(dict(enumerate(settings.intake)))
    if reader.mistakes:
        raise ConfigurationInvalid(reader.mistakes)
    return tuple(reader.declarations())


def entity_mistakes(
    path: Path,
    kinds: Mapping[str, StoreKind | None],
    intakes: Mapping[int, ConfiguredIntake],
) -> list[str]:
    """Give all mistakes of the files, and of the intakes' grants on what they declare.

    The kind of a store is ``None`` where it is not known; intakes are given by their place.
    """
    reader = _Reader(kinds)
    reader.read(path)
    reader.judge_grants(intakes)
    return reader.mistakes


_OPERATIONS: Final = tuple(kind.value for kind in OperationKind)
_ENTITY_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")
_TOPIC_LENGTH_MAX: Final = 249


class _Reader:
    """Gathers entities and mistakes over files."""

    def __init__(self, kinds: Mapping[str, StoreKind | None]) -> None:
        self.mistakes: list[str] = []
        self._kinds = kinds
        self._files: dict[str, Path] = {}
        self._entities: dict[str, ReadEntity] = {}

    def read(self, path: Path) -> None:
        """Read a file, or every ``.toml`` file of a folder."""
        files = self._files_at(path)
        given: list[tuple[Path, str, Any]] = []
        for file in files:
            try:
                tree = read_toml(file, exact_fractions=True)
            except ConfigurationInvalid as error:
                self.mistakes += error.mistakes
                continue
            given += [(file, name, table) for name, table in tree.items()]
        if files and not given and not self.mistakes:
            self.mistakes.append(f"{path}: declares no entity")
        for file, name, table in given:
            self._read_entity(file, name, table)
        for entity in self._entities.values():
            self._judge_references(entity)
        self._judge_together()

    def declarations(self) -> list[Declaration]:
        """Give what was declared, once nothing is wrong."""
        return [
            entity.declaration(f"{self._files[name]}: {dotted((name,))}")
            for name, entity in self._entities.items()
        ]

    def judge_grants(self, intakes: Mapping[int, ConfiguredIntake]) -> None:
        """A grant must name what there is, or it would grant less than somebody believes."""
        declared = {
            name: DeclaredEntity(
                frozenset(entity.table.operations or _OPERATIONS), frozenset(entity.table.fields)
            )
            for name, entity in self._entities.items()
        }
        if len(declared) == len(self._files):  # else it cannot be told what is unknown
            self.mistakes += grant_mistakes(intakes, declared)

    def judge_topics(self, topics: ConfiguredTopics, intakes: Sequence[ConfiguredIntake]) -> None:
        """An event must not come back as a unit, nor stand among outcomes."""
        taken = {intake.topic: f"intake.{at}" for at, intake in enumerate(intakes)}
        roles = ("outcomes", "dead_letters") if intakes else ("units", "outcomes", "dead_letters")
        taken |= {getattr(topics, role): f"topics.{role}" for role in roles}
        for name in self._files:
            topic = topics.changes.replace("{entity}", name)
            if len(topic) > _TOPIC_LENGTH_MAX or topic in {".", ".."}:
                self._wrong(name, (), f"its topic {topic} is no legal name for Kafka")
            if topic in taken:
                self._wrong(name, (), f"its topic {topic} is {taken[topic]} as well")

    def _wrong(self, name: str, below: Place, sentence: str) -> None:
        self.mistakes.append(f"{self._files[name]}: {dotted((name, *below))}: {sentence}")

    # --- files ----------------------------------------------------------------------------------

    def _files_at(self, path: Path) -> list[Path]:
        if not path.is_dir():
            return [path]
        files = sorted(
            each for each in path.glob("*.toml") if each.is_file() and each.name[0] != "."
        )
        if not files:
            self.mistakes.append(f"{path}: the folder holds no .toml file")
        return files

    def _read_entity(self, file: Path, name: str, table: Any) -> None:
        if name in self._files:
            self.mistakes.append(
                f"{file}: {dotted((name,))}: is declared in {self._files[name]} as well"
            )
            return
        self._files[name] = file
        if not _ENTITY_NAME.fullmatch(name):
            self._wrong(
                name,
                (),
                "an entity's name becomes part of a topic's: 1 to 200 letters, digits, dots, "
                "_ and -",
            )
        if not isinstance(table, dict):
            self._wrong(name, (), "must be a table")
            return
        entity = ReadEntity(name, table, self._kinds)
        self._entities[name] = entity
        for below, sentence in entity.wrong:
            self._wrong(name, below, sentence)

    # --- entities together ----------------------------------------------------------------------

    def _judge_references(self, entity: ReadEntity) -> None:
        for field_name, target in entity.table.references.items():
            referred = self._referred(target)
            fault = self._reference_fault(entity, field_name, target, referred)
            if fault is not None:
                self._wrong(entity.name, ("references", field_name), fault)
            elif referred is not None:
                entity.references.append(Reference(field_name, referred))

    def _referred(self, target: str) -> str | None:
        """Find the entity in ``entity.field``: both may hold dots, so the longest name wins."""
        names = [name for name in self._files if target.startswith(f"{name}.")]
        return max(names, key=len, default=None)

    def _reference_fault(
        self, entity: ReadEntity, field_name: str, target: str, referred: str | None
    ) -> str | None:
        if field_name not in entity.table.fields:
            return f"the field {field_name} is not declared in fields"
        if field_name == entity.table.version:
            return "the version refers to nothing"
        if referred is None:
            name = target.rpartition(".")[0]
            if not name:
                return 'must be "entity.field", such as "customer.id"'
            return f"names no declared entity{hint(name, self._files)}"
        other = self._entities.get(referred)
        if other is None or other.table.key is None:
            return None  # its own mistakes are told already
        if target[len(referred) + 1 :] != other.table.key:
            return f"must name the key of {referred}, which is {other.table.key}"
        field, key = entity.fields.get(field_name), other.fields.get(other.table.key)
        if field is not None and key is not None and field.type is not key.type:
            return f"this field is {field.type}, but {target} is {key.type}"
        return None

    def _judge_together(self) -> None:
        """One table is one entity (two would lock apart, I5); topics must differ for Kafka."""
        places: dict[tuple[str, str | None, str], str] = {}
        topics: dict[str, str] = {}
        for name, entity in self._entities.items():
            other = topics.setdefault(name.replace(".", "_"), name)
            if other != name:
                self._wrong(name, (), f"Kafka takes . and _ for the same: it clashes with {other}")
            if entity.target is None or entity.table.store is None:
                continue
            other = places.setdefault((entity.table.store, *entity.target), name)
            if other != name:
                member = "collection" if entity.table.table is None else "table"
                self._wrong(name, (member,), f"is mapped as {other} already")
