"""Where settings come from, and which source wins: file < secrets files < environment < overrides.

Owns the names (``COORDINATOR_STORES__LEDGER__DSN``, the secrets file ``stores__ledger__dsn``, the
override ``stores.ledger.dsn``), reading texts as the setting's type, and remembering which source
gave what, so that a mistake can name its place. Refuses to judge values beyond their type.

Variables that begin with ``COORDINATOR_`` but name no setting and have no ``__`` are left alone:
Kubernetes sets such ones for a service that is called coordinator.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from coordinator.settings.models import SECTIONS, STORE_MODELS
from coordinator.toml_reading import Place, dotted, hint

PREFIX: Final = "COORDINATOR_"
LEVEL: Final = "__"
FILE_SUFFIX: Final = "_FILE"
CONFIG_VARIABLE: Final = "COORDINATOR_CONFIG"
SECRETS_VARIABLE: Final = "COORDINATOR_SECRETS_DIR"
SECRETS_FOLDER: Final = Path("/run/secrets/coordinator")
DEFAULT_CONFIG: Final = Path("config/coordinator.toml")

_SECRET_BYTES_MAX: Final = 65_536
_TOP_LEVEL: Final = frozenset({"entities"})


@dataclass(slots=True)
class Tree:
    """Settings as they are gathered: nested tables, the origin of each, and the mistakes so far."""

    file: Path
    values: dict[str, Any]
    origins: dict[Place, str] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)

    def place(self, at: Place) -> str:
        """Say where a setting was given, or would be: in the file, unless another source did."""
        return self.origins.get(at) or f"{self.file}: {dotted(at)}"

    def wrong(self, at: Place, sentence: str) -> None:
        """Note a mistake at a setting."""
        self.mistakes.append(f"{self.place(at)}: {sentence}")

    def put(self, at: Place, value: object, origin: str) -> None:
        """Set one setting, over what an earlier source gave."""
        table = self.values
        for name in at[:-1]:
            below = table.setdefault(name, {})
            if not isinstance(below, dict):
                return  # told when its section is judged: it must be a table
            table = below
        table[at[-1]] = value
        self.origins[at] = origin

    def put_text(self, at: Place, text: str, origin: str) -> None:
        """Set one setting from a text; note a mistake if there is no such setting or type."""
        annotation = _annotation(at)
        if annotation is None:
            self.mistakes.append(f"{origin}: names no setting{_near(at)}")
            return
        try:
            self.put(at, read_text(annotation, text), origin)
        except ValueError as error:
            self.mistakes.append(f"{origin}: {error}")


def add_secrets_files(tree: Tree, environ: Mapping[str, str]) -> None:
    """Take the settings of the secrets folder: a file's name is the setting's, levels by ``__``."""
    named = environ.get(SECRETS_VARIABLE)
    folder = Path(named) if named else SECRETS_FOLDER
    try:
        files = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    except OSError as error:
        if named:
            tree.mistakes.append(f"{SECRETS_VARIABLE}: {folder} cannot be read: {error.strerror}")
        return
    for file in files:
        if file.is_file() and (text := _secret(tree, file, str(file))) is not None:
            tree.put_text(_place_of(tree, file.name), text, str(file))


def add_environment(tree: Tree, environ: Mapping[str, str]) -> None:
    """Take the settings of the environment, of the files that it names as well."""
    given: dict[Place, str] = {}
    for variable in sorted(environ):
        name = variable.removeprefix(PREFIX)
        if name == variable or not _is_ours(name):
            continue
        at, is_file = _place_of(tree, name), False
        if _annotation(at) is None and name.endswith(FILE_SUFFIX):
            of_file = _place_of(tree, name.removesuffix(FILE_SUFFIX))
            is_file = _annotation(of_file) is not None
            at = of_file if is_file else at
        if at in given:
            tree.mistakes.append(f"{variable}: {given[at]} is set as well; give one of them")
            continue
        given[at] = variable
        text = environ[variable]
        found = _secret(tree, Path(text), variable) if is_file else text
        if found is not None:
            tree.put_text(at, found, variable)


def add_overrides(tree: Tree, overrides: Mapping[str, object]) -> None:
    """Take the overrides: dotted names to texts, or to values of the setting's own type."""
    for name, value in overrides.items():
        at = tuple(part.strip() for part in name.split("."))
        origin = f"command line: {name}"
        if isinstance(value, str):
            tree.put_text(at, value, origin)
        elif _annotation(at) is None:
            tree.mistakes.append(f"{origin}: names no setting{_near(at)}")
        else:
            tree.put(at, value, origin)


def variable_of(at: Place) -> str:
    """Give the environment variable that sets a setting."""
    return PREFIX + LEVEL.join(at).upper().replace("-", "_")


# --- names --------------------------------------------------------------------------------------


def _is_ours(name: str) -> bool:
    first = name.partition(LEVEL)[0].lower()
    top = _TOP_LEVEL | set(SECTIONS) | {"stores"}
    return LEVEL in name or first in top or first.removesuffix(FILE_SUFFIX.lower()) in _TOP_LEVEL


def _place_of(tree: Tree, name: str) -> Place:
    """Turn ``STORES__LEDGER__DSN`` into a place; a store is found whatever its letters' case."""
    at = name.lower().split(LEVEL)
    stores = tree.values.get("stores")
    if at[0] == "stores" and len(at) > 1 and isinstance(stores, dict):
        for store in stores:
            if store.lower().replace("-", "_") == at[1].replace("-", "_"):
                at[1] = store
    return tuple(at)


def _annotation(at: Place) -> Any:
    """Give the type of a setting; ``None`` if there is none of that name."""
    match at:
        case ("entities",):
            return Path
        case (section, name) if section in SECTIONS:
            found = SECTIONS[section].model_fields.get(name)
            return None if found is None else found.annotation
        case ("stores", store, name) if store:
            for model in STORE_MODELS.values():
                if name in model.model_fields:
                    return model.model_fields[name].annotation
    return None


def known_places() -> Iterator[Place]:
    """Give every setting, those of the stores under the name ``<name>``."""
    yield ("entities",)
    for section, model in SECTIONS.items():
        for name in model.model_fields:
            yield (section, name)
    for store_model in STORE_MODELS.values():
        for name in store_model.model_fields:
            yield ("stores", "<name>", name)


def _near(at: Place) -> str:
    if at[0] == "stores" and len(at) == 3:
        names = {name for model in STORE_MODELS.values() for name in model.model_fields}
        return hint(at[2], sorted(names))
    return hint(".".join(at), [".".join(place) for place in known_places()])


# --- texts --------------------------------------------------------------------------------------

_BOOLEANS: Final = {"true": True, "false": False, "1": True, "0": False, "yes": True, "no": False}


def read_text(annotation: Any, text: str) -> object:
    """Read a text as a setting's type; raise `ValueError` with a sentence without the text."""
    if annotation is bool:
        if (value := _BOOLEANS.get(text.strip().lower())) is None:
            raise ValueError("must be true or false")
        return value
    if annotation is int:
        return _number(int, text, "must be a whole number")
    if annotation is float:
        return _number(float, text, "must be a number")
    if getattr(annotation, "__origin__", None) is tuple:
        return _entries(text)
    return text


def _number(read: type[int] | type[float], text: str, sentence: str) -> int | float:
    try:
        return read(text.strip())
    except ValueError:
        raise ValueError(sentence) from None


def _entries(text: str) -> list[str]:
    if not text.lstrip().startswith("["):
        return [entry.strip() for entry in text.split(",") if entry.strip()]
    try:
        entries = json.loads(text)
    except ValueError:
        raise ValueError("must be an array of strings, or strings separated by commas") from None
    if not all(isinstance(entry, str) for entry in entries):
        raise ValueError("must be an array of strings, or strings separated by commas")
    return list(entries)


def _secret(tree: Tree, file: Path, origin: str) -> str | None:
    """Read a secret's file without the line break at its end; note why it cannot be."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(_SECRET_BYTES_MAX + 1)
        if len(raw) > _SECRET_BYTES_MAX:
            tree.mistakes.append(f"{origin}: the file is larger than {_SECRET_BYTES_MAX} bytes")
            return None
        return raw.decode().rstrip("\r\n")
    except OSError as error:
        tree.mistakes.append(f"{origin}: the file cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        tree.mistakes.append(f"{origin}: the file is not UTF-8")
    return None
