"""Grants against the declared entities: what a grant names must be there.

A misspelt name would grant less than somebody believes, and be found out by a refused unit. Owns
the sentences; how grants bound units is `coordinator.domain.authority`'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from coordinator.toml_reading import Place, dotted, hint


class ConfiguredGrant(Protocol):
    """What is asked of a grant's settings."""

    @property
    def entity(self) -> str:
        """The entity."""

    @property
    def operations(self) -> Sequence[str]:
        """The operations."""

    @property
    def fields(self) -> Sequence[str] | None:
        """The fields; None means the whole record."""


class ConfiguredKey(Protocol):
    """What is asked of a signing key's settings."""

    @property
    def grants(self) -> Sequence[ConfiguredGrant] | None:
        """Grants of its own."""


class ConfiguredSigned(Protocol):
    """What is asked of the settings for signed units."""

    @property
    def keys(self) -> Sequence[ConfiguredKey]:
        """The keys."""


class ConfiguredIntake(Protocol):
    """What is asked of an intake's settings."""

    @property
    def topic(self) -> str:
        """The topic that units come from."""

    @property
    def grants(self) -> Sequence[ConfiguredGrant] | None:
        """The grants; None means everything."""

    @property
    def signed(self) -> ConfiguredSigned | None:
        """The keys, where units are signed."""


class DeclaredEntity(NamedTuple):
    """What grants may name of an entity."""

    operations: frozenset[str]
    fields: frozenset[str]


def grant_mistakes(
    intakes: Mapping[int, ConfiguredIntake], entities: Mapping[str, DeclaredEntity]
) -> list[str]:
    """Give every grant that names what is not there, with its place.

    Intakes are given by their place in the file.
    """
    return [
        f"{dotted((*at, *below))}: {sentence}"
        for at, grant in granted(intakes)
        for below, sentence in _faults(grant, entities)
    ]


def granted(intakes: Mapping[int, ConfiguredIntake]) -> Iterator[tuple[Place, ConfiguredGrant]]:
    """Give every grant, those of keys too, with its place."""
    for number, intake in intakes.items():
        at: Place = ("intake", str(number))
        yield from _each((*at, "grants"), intake.grants)
        for key_number, key in enumerate(() if intake.signed is None else intake.signed.keys):
            yield from _each((*at, "signed", "keys", str(key_number), "grants"), key.grants)


def _each(
    at: Place, grants: Sequence[ConfiguredGrant] | None
) -> Iterator[tuple[Place, ConfiguredGrant]]:
    for number, grant in enumerate(grants or ()):
        yield (*at, str(number)), grant


def _faults(
    grant: ConfiguredGrant, entities: Mapping[str, DeclaredEntity]
) -> Iterator[tuple[Place, str]]:
    entity = entities.get(grant.entity)
    if entity is None:
        yield ("entity",), f"names no declared entity{hint(grant.entity, entities)}"
        return
    for operation in grant.operations:
        if operation not in entity.operations:
            yield ("operations",), f"the entity {grant.entity} does not allow {operation}"
    for name in grant.fields or ():
        if name not in entity.fields:
            yield (
                ("fields",),
                f"{grant.entity} has no field {name}{hint(name, sorted(entity.fields))}",
            )
