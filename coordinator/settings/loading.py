"""Loading the settings: gather the sources, judge everything, and tell all mistakes at once.

Owns the order of the sources (DESIGN 2.5). When anything is wrong, the entities' files are judged
as well, so that an operator sees every mistake that can be known without a server (F35).
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from coordinator.domain.entity import StoreKind
from coordinator.domain.errors import ConfigurationInvalid
from coordinator.mapping.reading import entity_mistakes
from coordinator.settings.intakes import Intake, Signed, SigningKey
from coordinator.settings.models import SECTIONS, STORE_MODELS, Settings, Store
from coordinator.settings.redaction import Redactor, passwords_of
from coordinator.settings.relations import Valid, mistakes
from coordinator.settings.section import Section
from coordinator.settings.sources import (
    CONFIG_VARIABLE,
    DEFAULT_CONFIG,
    Tree,
    add_environment,
    add_overrides,
    add_secrets_files,
)
from coordinator.signatures import KeyUnusable, read_key_file, read_public_key
from coordinator.toml_reading import Place, findings, hint, read_toml

ModelT = TypeVar("ModelT", bound=BaseModel)

_STORE_NAME_MAX: Final = 63
_NO_OVERRIDES: Final[Mapping[str, object]] = {}


def load_settings(
    config: Path | None,
    overrides: Mapping[str, object] = _NO_OVERRIDES,
    environ: Mapping[str, str] = os.environ,
) -> Settings:
    """Load the settings from all sources; raise `ConfigurationInvalid` with every mistake.

    ``config`` None means ``COORDINATOR_CONFIG``, else ``config/coordinator.toml``. ``overrides``
    maps dotted names (``kafka.group_id``) to texts or values.
    """
    path = Path(config or environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)
    tree = Tree(path, read_toml(path))
    add_secrets_files(tree, environ)
    add_environment(tree, environ)
    add_overrides(tree, overrides)
    entities = _entities(tree)
    sections = _sections(tree)
    stores = _stores(tree)
    intakes = _intakes(tree)
    kinds = _kinds(tree)
    for at, sentence in mistakes(Valid(sections, stores, kinds, intakes)):
        tree.wrong(at, sentence)
    if tree.mistakes:
        if entities is not None:
            tree.mistakes += entity_mistakes(entities, _store_kinds(kinds), intakes)
        mask = Redactor(_secrets(tree.values))
        raise ConfigurationInvalid([mask(mistake) for mistake in tree.mistakes])
    return Settings.model_validate(
        {**sections, "entities": entities, "stores": stores, "intake": tuple(intakes.values())}
    )


def _entities(tree: Tree) -> Path | None:
    """Judge the names at the top, and give the path of the mapping."""
    known = ("entities", *SECTIONS, "intake", "stores")
    for name in tree.values:
        if name not in known:
            tree.wrong((name,), "is not known" + hint(name, known))
    given = tree.values.get("entities", "entities.toml")
    if not isinstance(given, str | Path) or not str(given):
        tree.wrong(("entities",), "must be a string, the path of a file or folder")
        return None
    return tree.file.parent / given


def _sections(tree: Tree) -> dict[str, Section]:
    valid: dict[str, Section] = {}
    for name, model in SECTIONS.items():
        given = tree.values.get(name, {})
        section = _judged(tree, (name,), model, _beside_the_file(tree, model, given))
        if section is not None:
            valid[name] = section
    return valid


def _beside_the_file(tree: Tree, model: type[Section], table: Any) -> Any:
    """Take the paths in a table as relative to the configuration's file."""
    if not isinstance(table, dict):
        return table
    return {
        name: tree.file.parent / value
        if isinstance(value, str) and value and name in _FILES[model.__name__]
        else value
        for name, value in table.items()
    }


_FILES: Final = {
    model.__name__: {name for name in model.model_fields if name.endswith("_file")}
    for model in SECTIONS.values()
}


def _stores(tree: Tree) -> dict[str, Store]:
    given = tree.values.get("stores", {})
    if not isinstance(given, dict):
        tree.wrong(("stores",), "must be a table of stores")
        return {}
    if not given:
        tree.wrong(("stores",), "names no store; at least one is needed")
    valid: dict[str, Store] = {}
    for name, table in given.items():
        store = _store(tree, name, table)
        if store is not None:
            valid[name] = store
    return valid


def _store(tree: Tree, name: str, table: object) -> Store | None:
    at = ("stores", name)
    if not name.replace("_", "").replace("-", "").isalnum() or len(name) > _STORE_NAME_MAX:
        tree.wrong(at, f"a store's name is 1 to {_STORE_NAME_MAX} letters, digits, _ and -")
        return None
    if not isinstance(table, dict):
        tree.wrong(at, "must be a table")
        return None
    kind = table.get("kind")
    model = STORE_MODELS.get(kind) if isinstance(kind, str) else None
    if model is None:
        tree.wrong((*at, "kind"), _KIND_MISSING if kind is None else _KIND_WRONG)
        return None
    return _judged(tree, at, model, table)


_KIND_MISSING: Final = 'is missing; it must be "postgresql" or "mongodb"'
_KIND_WRONG: Final = 'must be "postgresql" or "mongodb"'


def _intakes(tree: Tree) -> dict[int, Intake]:
    """Give the valid ones by their place in the file."""
    given = tree.values.get("intake", [])
    if not isinstance(given, list):
        tree.wrong(("intake",), "must be an array of tables: [[intake]]")
        return {}
    valid: dict[int, Intake] = {}
    for number, table in enumerate(given):
        at = ("intake", str(number))
        intake = _judged(tree, at, Intake, table)
        if intake is not None:
            signed = None if intake.signed is None else _with_keys(tree, at, intake.signed)
            valid[number] = intake.model_copy(update={"signed": signed})
    return valid


def _with_keys(tree: Tree, at: Place, signed: Signed) -> Signed:
    """Read the keys, so that each holds its 32 bytes in base64 whatever way it was given."""
    keys = [
        _with_key(tree, (*at, "signed", "keys", str(number)), key)
        for number, key in enumerate(signed.keys)
    ]
    return signed.model_copy(update={"keys": tuple(keys)})


def _with_key(tree: Tree, at: Place, key: SigningKey) -> SigningKey:
    if (key.public_key is None) == (key.file is None):
        tree.wrong(at, "needs public_key or file, one of them")
        return key
    member = "public_key" if key.file is None else "file"
    try:
        text = (key.public_key or "") if key.file is None else _key_text(tree, key.file)
        raw = read_public_key(text)
    except KeyUnusable as error:
        tree.wrong((*at, member), str(error))
        return key
    return key.model_copy(update={"public_key": b64encode(raw).decode(), "file": None})


def _key_text(tree: Tree, file: Path) -> str:
    return read_key_file(tree.file.parent / file)


def _judged(tree: Tree, at: Place, model: type[ModelT], table: object) -> ModelT | None:
    try:
        return model.model_validate(table)
    except ValidationError as error:
        for below, sentence in findings(error, tuple(model.model_fields)):
            tree.wrong((*at, *below), sentence)
    return None


def _kinds(tree: Tree) -> dict[str, str | None]:
    """Give every store that is named, with its kind if that is legible."""
    given = tree.values.get("stores")
    if not isinstance(given, dict):
        return {}
    kinds: dict[str, str | None] = {}
    for name, table in given.items():
        kind = table.get("kind") if isinstance(table, dict) else None
        kinds[name] = kind if isinstance(kind, str) and kind in STORE_MODELS else None
    return kinds


def _store_kinds(kinds: Mapping[str, str | None]) -> dict[str, StoreKind | None]:
    return {name: None if kind is None else StoreKind(kind) for name, kind in kinds.items()}


def _secrets(values: Any) -> list[str]:
    """Give the passwords in any string that looks like an address, wherever it was written."""
    if isinstance(values, dict):
        return [secret for pair in values.items() for each in pair for secret in _secrets(each)]
    if isinstance(values, list | tuple):
        return [secret for each in values for secret in _secrets(each)]
    return list(passwords_of(values)) if isinstance(values, str) else []
