"""What the straight line publishes: an outcome and two change events for each unit.

Of the same shape and size as the coordinator's, with the same headers.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final, NamedTuple, TypeAlias

import msgpack

from benchmarks.straight_line.units import Batch, Image, Unit

Header: TypeAlias = tuple[str, bytes]

_SPEC: Final[Header] = ("ce_specversion", b"1.0")
_JSON: Final[Header] = ("content-type", b"application/json")
_SOURCE: Final[Header] = ("ce_source", b"/coordinator/bench")
_UPDATED: Final[Header] = ("ce_type", b"io.coordinator.entity.updated.v1")
_COMMITTED: Final[Header] = ("ce_type", b"io.coordinator.unit.committed.v1")


class Message(NamedTuple):
    """A message ready to send."""

    topic: str
    key: bytes
    value: bytes
    headers: list[Header]


class Announcing:
    """Makes messages for three topics."""

    def __init__(self, outcomes: str, accounts: str, wallets: str) -> None:
        self._outcomes = outcomes
        self._accounts = accounts
        self._wallets = wallets

    def announce(self, units: Batch) -> list[Message]:
        """Give the messages of a batch; each unit keeps its outcome."""
        now = datetime.now(UTC)
        at = _instant(now)
        time_header = ("ce_time", at)
        ts_ms = b"%d" % int(now.timestamp() * 1000)
        messages: list[Message] = []
        for unit in units:
            unit_id = unit.id.encode()
            unit.outcome = _outcome(unit, unit_id, at, now)
            account, wallet = b"%d" % unit.account, b"%d" % unit.wallet
            messages.append(
                Message(
                    self._accounts,
                    account,
                    _change(
                        b"id", account, unit.account_before, unit.account_after, unit_id, 1, ts_ms
                    ),
                    _headers(unit_id + b"/1", _UPDATED, account, time_header),
                )
            )
            messages.append(
                Message(
                    self._wallets,
                    wallet,
                    _change(
                        b"_id", wallet, unit.wallet_before, unit.wallet_after, unit_id, 2, ts_ms
                    ),
                    _headers(unit_id + b"/2", _UPDATED, wallet, time_header),
                )
            )
            messages.append(
                Message(
                    self._outcomes,
                    unit_id,
                    unit.outcome,
                    _headers(unit_id + b"/outcome", _COMMITTED, unit_id, time_header),
                )
            )
        return messages


def pack(messages: list[Message]) -> bytes:
    """Pack messages for the outbox."""
    packed: bytes = msgpack.packb(messages)
    return packed


def _instant(at: datetime) -> bytes:
    return (at.replace(tzinfo=None).isoformat(timespec="microseconds") + "Z").encode()


def _headers(ce_id: bytes, kind: Header, subject: bytes, time: Header) -> list[Header]:
    return [_SPEC, ("ce_id", ce_id), kind, _SOURCE, ("ce_subject", subject), time, _JSON]


def _outcome(unit: Unit, unit_id: bytes, at: bytes, now: datetime) -> bytes:
    return (
        b'{"unit":"%b","digest":"%b","status":"committed","duplicate":false,"error":null,'
        b'"operations":[{"entity":"account","key":%d,"op":"update","version":%d},'
        b'{"entity":"wallet","key":%d,"op":"update","version":%d}],'
        b'"received_at":"%b","finished_at":"%b","duration_ms":%.3f,"metadata":null}'
        % (
            unit_id,
            unit.digest.encode(),
            unit.account,
            unit.account_after.version,
            unit.wallet,
            unit.wallet_after.version,
            _instant(unit.received_at),
            at,
            (now - unit.received_at).total_seconds() * 1000,
        )
    )


def _change(
    field: bytes, key: bytes, before: Image, after: Image, unit_id: bytes, order: int, ts_ms: bytes
) -> bytes:
    return (
        b'{"op":"u","before":{"%b":%b,"balance":"%b","version":%d},'
        b'"after":{"%b":%b,"balance":"%b","version":%d},'
        b'"source":{"connector":"coordinator","version":"0.1.0","name":"bench","ts_ms":%b,'
        b'"store":"straight-line","entity":"straight-line","table":"straight-line"},'
        b'"transaction":{"id":"%b","total_order":%d,"data_collection_order":1},"ts_ms":%b}'
        % (
            field,
            key,
            before.balance.encode(),
            before.version,
            field,
            key,
            after.balance.encode(),
            after.version,
            ts_ms,
            unit_id,
            order,
            ts_ms,
        )
    )
