"""The shape of ``entities.toml``: one table per entity, one inline table per field.

Owns names and shapes; what they mean together is judged in `fields` and `reading`. The
descriptions are the reference page's text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, JsonValue, StringConstraints

from coordinator.domain.entity import Entity

TypeName: TypeAlias = Literal[
    "string", "integer", "decimal", "float", "boolean", "timestamp",
    "date", "uuid", "binary", "json", "objectid",
]  # fmt: skip
OperationName: TypeAlias = Literal["insert", "update", "upsert", "delete", "check"]
PolicyName: TypeAlias = Literal["park", "force", "skip"]
Name: TypeAlias = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class Table(BaseModel):
    """A table of the file: nothing unknown in it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


REQUIRED: Final[dict[str, JsonValue]] = {"shown": "required"}
"""What is missing is told by `reading`, so that the rest is judged all the same."""


class FieldTable(Table):
    """One field, as it is declared. The values are read by the field's type."""

    type: TypeName | None = Field(
        None, description="How values travel and are stored.", json_schema_extra=REQUIRED
    )
    nullable: bool = Field(False, description="Whether it may be null or left out.")
    min: Any = Field(None, description="The least value that an operation may write.")
    max: Any = Field(None, description="The greatest value that an operation may write.")
    max_length: int | None = Field(
        None, ge=0, description="Code points of a string, bytes of a binary, at most."
    )
    pattern: str | None = Field(
        None, max_length=1_000, description="A regular expression that the whole string matches."
    )
    enum: list[Any] | None = Field(None, description="The only values that may be written.")
    read_only: bool = Field(
        False, description="Never written by a client, only by `default`; allowed in `expect`."
    )
    default: Any = Field(
        None,
        description='The value of an insert without the field; `"uuid7"` for uuid fields and '
        '`"now"` for timestamp and date fields are drawn at admission.',
    )


class EntityTable(Table):
    """One entity, as it is declared."""

    store: Name | None = Field(
        None, description="The store, by its name in `[stores]`.", json_schema_extra=REQUIRED
    )
    table: Name | None = Field(
        None, description="In PostgreSQL: the table, `table` (schema public) or `schema.table`."
    )
    collection: Name | None = Field(None, description="In MongoDB: the collection.")
    key: Name | None = Field(
        None,
        description="The field that holds the key: a single column that is PRIMARY KEY or UNIQUE "
        "NOT NULL; in MongoDB `_id`.",
        json_schema_extra=REQUIRED,
    )
    key_default: Literal["uuid7"] | None = Field(
        None, description="Draw the key of an insert without `key`; for uuid and string keys."
    )
    version: Name | None = Field(
        None, description="An integer column or member that we count up with every write."
    )
    operations: list[OperationName] | None = Field(
        None,
        description="The operations that are allowed.",
        json_schema_extra={"shown": "all"},
    )
    on_foreign_write: PolicyName = Field(
        "park", description="What undo does where somebody else wrote in between."
    )
    references: dict[str, str] = Field(
        default_factory=dict,
        description='Fields that hold keys of other entities: `{ customer = "customer.id" }`. '
        "Decides the order of operations, and what is locked.",
    )
    fields: dict[str, Any] = Field(
        default_factory=dict, description="The fields, by name.", json_schema_extra=REQUIRED
    )


@dataclass(frozen=True, slots=True)
class Declaration:
    """One entity as declared, its table not yet looked at.

    ``place`` says where (``config/entities.toml: account``). The entity has no columns, and the
    limits of its fields are unknown. ``says_operations``: the allow-list was written out.
    """

    place: str
    entity: Entity
    says_operations: bool
