"""The tables, collections and entities of the acceptance tests: every type in every store.

Three stores: `ledger` (PostgreSQL, the journal's), `archive` (PostgreSQL, not the journal's) and
`catalog` (MongoDB). To make a unit be `compensated`, write to archive or catalog and break a CHECK
in ledger: that is seen only at the pivot.
"""

from __future__ import annotations

from typing import Any

LEDGER_SQL = """
CREATE TABLE accounts (
    id bigint PRIMARY KEY,
    balance numeric(12,2),
    status text,
    note varchar(20),
    code text,
    origin text,
    opened timestamptz,
    hidden text DEFAULT 'kept',
    version integer NOT NULL,
    CONSTRAINT accounts_ceiling CHECK (balance <= 900000)
);
CREATE TABLE customers (
    id bigint PRIMARY KEY,
    name text NOT NULL,
    email text UNIQUE,
    status text,
    tier integer CHECK (tier < 100),
    version bigint NOT NULL
);
CREATE TABLE invoices (
    id text PRIMARY KEY,
    customer bigint REFERENCES customers (id),
    amount numeric NOT NULL DEFAULT 0,
    version integer NOT NULL
);
CREATE TABLE seats (id integer PRIMARY KEY, place integer UNIQUE DEFERRABLE INITIALLY DEFERRED);
CREATE TABLE tickets (id uuid PRIMARY KEY, title text, parent uuid);
CREATE TABLE limits (id integer PRIMARY KEY, ceiling integer);
CREATE TABLE parts (id integer PRIMARY KEY, label text, whole integer
    REFERENCES parts (id) DEFERRABLE INITIALLY DEFERRED);
CREATE SCHEMA app;
"""

SAMPLES_SQL = """
CREATE TABLE {table} (
    id text PRIMARY KEY,
    text_ text, word varchar(5), fixed char(3),
    small smallint, int_ integer, big bigint, huge numeric(20,0),
    amount numeric(12,4), free numeric, real_ real, double_ double precision,
    flag boolean, at_ timestamptz, day date, uid uuid, bytes_ bytea,
    data jsonb, raw json, version integer NOT NULL
);
"""

ARCHIVE_SQL = (
    "\n".join(
        f"""
CREATE TABLE {table} (
    id text PRIMARY KEY, amount numeric, note text, state text, hidden text DEFAULT 'kept',
    count integer, version integer NOT NULL
);"""
        for table in ("entries", "entries_force", "entries_skip")
    )
    + """
CREATE TABLE guarded (id integer PRIMARY KEY, note text UNIQUE, size integer CHECK (size > 0));
CREATE FUNCTION refuse_forbidden() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.note = 'forbidden' THEN RAISE EXCEPTION 'this note is forbidden'; END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER guard BEFORE INSERT OR UPDATE ON guarded
    FOR EACH ROW EXECUTE FUNCTION refuse_forbidden();
"""
)

# What the harness makes ahead in MongoDB; the other collections are left to the daemon (F35).
VALIDATORS: dict[str, dict[str, Any]] = {"members": {"age": {"$not": {"$lt": 18}}}}
UNIQUE_INDEXES = {"members": "email"}


def _field(of: str, *, nullable: bool = True, **more: Any) -> dict[str, Any]:
    return {"type": of, "nullable": nullable, **more} if nullable else {"type": of, **more}


def _key(of: str) -> dict[str, Any]:
    return _field(of, nullable=False)


def _sql_samples() -> dict[str, dict[str, Any]]:
    return {
        "id": _key("string"),
        "text_": _field("string"),
        "word": _field("string"),
        "fixed": _field("string"),
        "small": _field("integer"),
        "int_": _field("integer"),
        "big": _field("integer"),
        "huge": _field("integer"),
        "amount": _field("decimal"),
        "free": _field("decimal"),
        "real_": _field("float"),
        "double_": _field("float"),
        "flag": _field("boolean"),
        "at_": _field("timestamp"),
        "day": _field("date"),
        "uid": _field("uuid"),
        "bytes_": _field("binary"),
        "data": _field("json"),
        "raw": _field("json"),
    }


def _entry(table: str, policy: str) -> dict[str, Any]:
    return {
        "store": "archive",
        "table": table,
        "key": "id",
        "version": "version",
        "on_foreign_write": policy,
        "fields": {
            "id": _key("string"),
            "amount": _field("decimal"),
            "note": _field("string"),
            "state": _field("string"),
            "count": _field("integer"),
        },
    }


def _wallet(collection: str, policy: str) -> dict[str, Any]:
    return {
        "store": "catalog",
        "collection": collection,
        "key": "_id",
        "version": "version",
        "on_foreign_write": policy,
        "fields": {
            "_id": _key("string"),
            "balance": _field("decimal", min=0),
            "points": _field("integer"),
            "note": _field("string"),
            "state": _field("string"),
        },
    }


def entities() -> dict[str, dict[str, Any]]:
    """Give a fresh mapping, to be changed freely."""
    return {
        "account": {
            "store": "ledger",
            "table": "accounts",
            "key": "id",
            "version": "version",
            "fields": {
                "id": _key("integer"),
                "balance": _field("decimal", min=0, max=1_000_000),
                "status": _field("string", enum=["active", "trial", "closed"]),
                "note": _field("string", max_length=20),
                "code": _field("string", pattern="[A-Z]{2}[0-9]+"),
                "origin": _field("string", read_only=True, default="web"),
                "opened": _field("timestamp"),
            },
        },
        "customer": {
            "store": "ledger",
            "table": "customers",
            "key": "id",
            "version": "version",
            "fields": {
                "id": _key("integer"),
                "name": _field("string", nullable=False),
                "email": _field("string"),
                "status": _field("string", default="active"),
                "tier": _field("integer"),
                "version": _field("integer"),
            },
        },
        "invoice": {
            "store": "ledger",
            "table": "invoices",
            "key": "id",
            "version": "version",
            "references": {"customer": "customer.id"},
            "fields": {
                "id": _key("string"),
                "customer": _field("integer"),
                "amount": _field("decimal", nullable=False, default="0"),
            },
        },
        "seat": {
            "store": "ledger",
            "table": "seats",
            "key": "id",
            "fields": {"id": _key("integer"), "place": _field("integer")},
        },
        "ticket": {
            "store": "ledger",
            "table": "tickets",
            "key": "id",
            "key_default": "uuid7",
            "fields": {
                "id": _key("uuid"),
                "title": _field("string"),
                "parent": _field("uuid"),
            },
        },
        "limit": {
            "store": "ledger",
            "table": "limits",
            "key": "id",
            "operations": ["update", "check"],
            "fields": {"id": _key("integer"), "ceiling": _field("integer")},
        },
        "part": {
            "store": "ledger",
            "table": "parts",
            "key": "id",
            "references": {"whole": "part.id"},
            "fields": {
                "id": _key("integer"),
                "whole": _field("integer"),
                "label": _field("string"),
            },
        },
        "sample": {
            "store": "ledger",
            "table": "app.samples",
            "key": "id",
            "version": "version",
            "fields": _sql_samples(),
        },
        "specimen": {
            "store": "archive",
            "table": "specimens",
            "key": "id",
            "version": "version",
            "fields": _sql_samples(),
        },
        "entry": _entry("entries", "park"),
        "entry_force": _entry("entries_force", "force"),
        "entry_skip": _entry("entries_skip", "skip"),
        "guarded": {
            "store": "archive",
            "table": "guarded",
            "key": "id",
            "fields": {
                "id": _key("integer"),
                "note": _field("string"),
                "size": _field("integer"),
            },
        },
        "wallet": _wallet("wallets", "park"),
        "wallet_force": _wallet("wallets_force", "force"),
        "wallet_skip": _wallet("wallets_skip", "skip"),
        "order": {
            "store": "catalog",
            "collection": "orders",
            "key": "_id",
            "version": "v",
            "references": {"customer": "customer.id"},
            "fields": {
                "_id": _key("string"),
                "customer": _field("integer"),
                "total": _field("decimal"),
                "state": _field("string", enum=["open", "paid", "void"]),
                "lines": _field("json"),
                "placed": _field("timestamp"),
                "parcel": _field("uuid"),
            },
        },
        "parcel": {
            "store": "catalog",
            "collection": "parcels",
            "key": "_id",
            "key_default": "uuid7",
            "fields": {
                "_id": _key("uuid"),
                "label": _field("string"),
                "packed": _field("timestamp", default="now"),
            },
        },
        "member": {
            "store": "catalog",
            "collection": "members",
            "key": "_id",
            "fields": {
                "_id": _key("integer"),
                "email": _field("string"),
                "age": _field("integer"),
            },
        },
        "document": {
            "store": "catalog",
            "collection": "documents",
            "key": "_id",
            "version": "version",
            "fields": {
                "_id": _key("string"),
                "text_": _field("string"),
                "int_": _field("integer"),
                "amount": _field("decimal"),
                "double_": _field("float"),
                "flag": _field("boolean"),
                "at_": _field("timestamp"),
                "day": _field("date"),
                "uid": _field("uuid"),
                "bytes_": _field("binary"),
                "data": _field("json"),
                "oid": _field("objectid"),
            },
        },
    }
