"""A unit on its way along the straight line."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from typing import Any, NamedTuple

import orjson


class Image(NamedTuple):
    """One row or document at one moment, as events show it."""

    balance: str
    version: int


class Unit:
    """A debit and a credit. What is not known yet when it is read comes stage by stage."""

    __slots__ = (
        "account",
        "account_after",
        "account_before",
        "amount",
        "digest",
        "id",
        "offset",
        "outcome",
        "partition",
        "received_at",
        "seq",
        "value",
        "wallet",
        "wallet_after",
        "wallet_before",
        "wallet_raw",
    )

    account_before: Image
    account_after: Image
    wallet_before: Image
    wallet_after: Image
    wallet_raw: bytes
    received_at: datetime
    outcome: bytes

    def __init__(self, seq: int, partition: int, offset: int, value: bytes) -> None:
        submission = orjson.loads(value)
        debit, credit = submission["operations"]
        self.seq = seq
        self.partition = partition
        self.offset = offset
        self.value = value
        self.digest = sha256(value).hexdigest()
        self.id: str = submission["id"]
        self.account: int = debit["key"]
        self.wallet: int = credit["key"]
        self.amount: str = credit["increment"]["balance"]


Batch = Sequence[Unit]


def read(first_seq: int, records: Sequence[Any]) -> list[Unit]:
    """Read Kafka's records."""
    return [
        Unit(first_seq + number, record.partition, record.offset, record.value)
        for number, record in enumerate(records)
    ]
