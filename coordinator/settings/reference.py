"""The reference page of the configuration, made from the models so that it cannot drift.

Owns the prose around the tables and how a type, a bound and a default are shown. Pure: the page is
a string. ``python -m coordinator.settings`` writes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from coordinator.mapping.declaration import EntityTable, FieldTable
from coordinator.settings.intakes import Grant, Intake, Signed, SigningKey
from coordinator.settings.models import SECTIONS, STORE_MODELS, Settings
from coordinator.settings.section import Section
from coordinator.settings.sources import (
    CONFIG_VARIABLE,
    SECRETS_FOLDER,
    SECRETS_VARIABLE,
    variable_of,
)
from coordinator.toml_reading import Place


def reference_page() -> str:
    """Give the Markdown of ``docs/reference/configuration.md``."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _INTRODUCTION
    yield from _table((), {"entities": Settings.model_fields["entities"]})
    for section, model in SECTIONS.items():
        yield from _section(f"[{section}]", model)
        yield from _table((section,), model.model_fields)
    yield _INTAKES
    for title, table in _INTAKE_TABLES.items():
        yield from _section(title, table)
        yield from _members(table)
    for kind, store in STORE_MODELS.items():
        yield from _section(f'[stores.<name>] with kind = "{kind}"', store)
        yield from _table(("stores", "<name>"), store.model_fields)
    yield _ENTITIES
    yield from _members(EntityTable)
    yield _FIELDS
    yield from _members(FieldTable)
    yield _LAST


def _section(title: str, model: type[BaseModel]) -> Iterator[str]:
    yield f"\n### `{title}`\n\n{model.__doc__}\n"


def _table(at: Place, fields: dict[str, FieldInfo]) -> Iterator[str]:
    yield "| Setting | Value | Default | Environment | Meaning |"
    yield "|---|---|---|---|---|"
    for name, field in fields.items():
        yield (
            f"| `{name}` | {_type(field)} | {_default(field)} | `{variable_of((*at, name))}` "
            f"| {field.description} |"
        )


def _members(model: type[BaseModel]) -> Iterator[str]:
    yield "| Member | Value | Default | Meaning |"
    yield "|---|---|---|---|"
    for name, field in model.model_fields.items():
        yield f"| `{name}` | {_type(field)} | {_default(field)} | {field.description} |"


# --- cells --------------------------------------------------------------------------------------

_NAMES: Final[dict[Any, str]] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "string",
    SecretStr: "string, secret",
    Any: "value of the field's type",
}


def _type(field: FieldInfo) -> str:
    return _type_name(field.annotation) + _bounds(field)


def _type_name(annotation: Any) -> str:
    parts = [each for each in get_args(annotation) if each is not type(None)]
    origin = get_origin(annotation)
    if origin is Literal:
        return " ".join(f"`{each}`" for each in parts)
    if origin in {tuple, list}:
        inner = parts[0]
        return "array" if inner is Any else "array of " + _plural(_type_name(inner))
    if origin is dict:
        return "table"
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return "table"
    if annotation in _NAMES:
        return _NAMES[annotation]
    return _type_name(parts[0]) if parts else "string"


def _plural(name: str) -> str:
    if name in {"string", "table"}:
        return name + "s"
    return name


def _bounds(field: FieldInfo) -> str:
    least = most = above = None
    for rule in field.metadata:
        least = getattr(rule, "ge", least)
        above = getattr(rule, "gt", above)
        most = getattr(rule, "le", most)
    if above is not None and most is not None:
        return f", more than {_number(above)}, at most {_number(most)}"
    if least is not None and most is not None:
        return f", {_number(least)} to {_number(most)}"
    return f", at least {_number(least)}" if least is not None else ""


def _number(value: float) -> str:
    return f"{int(value):,}" if float(value).is_integer() else str(value)


def _default(field: FieldInfo) -> str:
    extra = field.json_schema_extra
    if isinstance(extra, dict) and "shown" in extra:
        return str(extra["shown"])
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    if isinstance(value, int | float):
        return f"`{_number(value).replace(',', '')}`"
    return f'`"{value}"`'


# --- prose --------------------------------------------------------------------------------------

_INTRODUCTION: Final = f"""\
# Configuration

<!-- Generated by `python -m coordinator.settings`; a test compares. Do not edit by hand. -->

Two files: `coordinator.toml` says where things are, `entities.toml` what units may touch. Both are
in `config/`, commented. Wrong configuration ends every command with exit code 2 and *all* mistakes,
each with its place: `config/coordinator.toml: stores.ledger.dsn: must begin with postgresql://`.
`coordinator check` also compares the mapping with the live servers and changes nothing.

## Where settings come from

The later wins:

1. the file that `--config FILE` names; without it `{CONFIG_VARIABLE}`, else
   `config/coordinator.toml`;
2. secrets files: every file in the folder that `{SECRETS_VARIABLE}` names (default
   `{SECRETS_FOLDER}`, if it is there) holds one setting and is named like it, with `__`
   between levels: `stores__ledger__dsn`;
3. the environment: `COORDINATOR_` and the name in upper case, `__` between levels:
   `COORDINATOR_KAFKA__BOOTSTRAP_SERVERS`; a `-` in a store's name becomes `_`. With `_FILE` at its
   end the variable names a file that holds the value;
4. the command line: `--set kafka.group_id=blue`.

Lists are written `a,b` or `["a", "b"]` there. Passwords belong into secrets files. They are masked
(`***`) in logs, errors and outcomes, also in their URL-encoded forms.

## `coordinator.toml`
"""

_INTAKES: Final = """
### Intakes

Topics of units with authority of their own, one table each; they are set in the file only. Without
any, everything that comes from `topics.units` is granted. With one or more, only their topics are
read, and only what they grant is done: [grants](../how-to/grants.md),
[signed units](../how-to/signed-units.md).
"""

_INTAKE_TABLES: Final[dict[str, type[Section]]] = {
    "[[intake]]": Intake,
    "grants = [{ … }]": Grant,
    "[intake.signed]": Signed,
    "[[intake.signed.keys]]": SigningKey,
}

_ENTITIES: Final = """
## `entities.toml`

One table per entity: `[account]`. `entities` may also name a folder; then all its `.toml` files
count together. An entity's name has letters, digits, dots, `_` and `-`, since it becomes part of a
topic's name. One table or collection is one entity.

### `[<entity>]`
"""

_FIELDS: Final = """
### `[<entity>.fields]`

One inline table per field: `balance = { type = "decimal", min = 0 }`. The field's name is the
column's or member's.
"""

_LAST: Final = """
`min`, `max`, `enum` and `default` are written as values of the field's type: decimals as numbers or
strings, timestamps and dates as TOML has them or as strings, uuids and binaries (base64) as
strings.
A pattern in which a repetition inside a repetition could match in several ways, such as `(a+)+`, is
refused: some texts would keep it busy for ever.

### Types

| Type | PostgreSQL column | MongoDB |
|---|---|---|
| `string` | text, varchar, char | string |
| `integer` | smallint, integer, bigint, numeric(p,0) | int64 |
| `decimal` | numeric | Decimal128, 34 digits |
| `float` | real, double precision | double |
| `boolean` | boolean | bool |
| `timestamp` | timestamp with time zone, microseconds | date, milliseconds |
| `date` | date | date at 00:00 UTC |
| `uuid` | uuid | binary, subtype 4 |
| `binary` | bytea | binary, subtype 0 |
| `json` | json, jsonb | any value |
| `objectid` | none | ObjectId |

Domains over these types count as the types.

### What is compared at start

With PostgreSQL: that the table is there and is a table; that every field has a column of a type
that holds it; that the key is PRIMARY KEY or UNIQUE NOT NULL by itself; that no field is `nullable`
over a column that is NOT NULL without a default; that every foreign key between mapped tables
stands in `references`; and, outside the journal's store, that nothing with ON DELETE CASCADE, SET
NULL or SET DEFAULT points at a table of which `delete` is allowed, since such a delete could not
be undone. Generated columns are read only. Triggers, rules, row security, missing rights and NOT
NULL columns that inserts cannot fill are warned of.

With MongoDB: that the server is a replica set, and that what is mapped is a collection, not a view
and not capped. Missing collections are made by `run`. Types of members are not compared.
"""
