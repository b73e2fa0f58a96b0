"""Signed units: what is signed, byte for byte, and each way in which a signature does not count."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator import signatures
from coordinator.domain import signing
from coordinator.domain.authority import Authority, Breach
from coordinator.domain.signing import (
    HEADER,
    Claims,
    SignedIntake,
    TrustedKey,
    judge,
    read_signature,
    signing_input,
)
from coordinator.domain.submission import (
    DeadLetter,
    RefusedCancel,
    RefusedEarly,
    read_unauthentic,
)
from coordinator.signatures import KeyUnusable, Signer

VECTORS = json.loads(
    (Path(__file__).parents[2] / "docs/reference/signature-vectors.json").read_text()
)
SEED, OTHER_SEED = bytes(range(32)), bytes(range(1, 33))
NOW = 1_767_225_600
SIGNER = Signer(SEED, "shop-1", "units", lifetime_seconds=900)
HOLDER = Authority(unit_id_prefix="shop-")
INTAKE = SignedIntake(
    audience="units",
    max_age_seconds=3_600,
    skew_seconds=30,
    keys={"shop-1": TrustedKey(SIGNER.public_key, HOLDER)},
    verify=signatures.verify,
)
VALUE = b'{"id": "shop-1", "operations": []}'
KEY = b"customer-5"
HEADERS: list[tuple[str, bytes | None]] = [
    ("content-type", b"application/json"),
    ("reply-to", b"replies"),
]


def signed(
    signer: Signer = SIGNER,
    *,
    key: bytes | None = KEY,
    headers: list[tuple[str, bytes | None]] = HEADERS,
    value: bytes = VALUE,
    at: float = NOW,
) -> list[tuple[str, bytes | None]]:
    return [*headers, signer.header(key, headers, value, at)]


def judged(
    headers: list[tuple[str, bytes | None]],
    *,
    key: bytes | None = KEY,
    value: bytes = VALUE,
    at: float = NOW,
    intake: SignedIntake = INTAKE,
) -> TrustedKey | Breach:
    return judge(intake, key, headers, value, at)


def test_a_genuine_unit_is_that_of_its_keys_holder() -> None:
    assert judged(signed()) == TrustedKey(SIGNER.public_key, HOLDER)


@pytest.mark.parametrize("vector", VECTORS["vectors"], ids=lambda each: str(each["name"]))
def test_the_documented_vectors(vector: dict[str, Any]) -> None:
    """Other languages are written against these: what they hold never changes."""

    def raw(name: str) -> bytes | None:
        return None if vector[name] is None else b64decode(vector[name])

    seed = signatures.read_private_key(VECTORS["private_key"])
    assert b64encode(signatures.public_key_of(seed)).decode() == VECTORS["public_key"]
    named = [("content-type", raw("content_type")), ("reply-to", raw("reply_to"))]
    headers = [(name, content) for name, content in named if content is not None]
    value = b64decode(vector["value"])
    claims = Claims(vector["key_id"], vector["audience"], vector["issued_at"], vector["expires_at"])
    assert signing_input(claims, raw("key"), headers, value) == b64decode(vector["signing_input"])
    lifetime = vector["expires_at"] - vector["issued_at"]
    signer = Signer(seed, claims.key_id, claims.audience, lifetime_seconds=lifetime)
    assert signer.header(raw("key"), headers, value, vector["issued_at"]) == (
        HEADER,
        vector["header"].encode(),
    )


def test_the_vectors_hold_a_record_with_everything_and_one_with_nothing() -> None:
    assert {each["name"] for each in VECTORS["vectors"]} >= {"everything", "nothing"}


# --- what does not count --------------------------------------------------------------------------

FORGERIES: dict[str, Callable[[], TrustedKey | Breach]] = {
    "unsigned": lambda: judged(HEADERS),
    "empty": lambda: judged([*HEADERS, (HEADER, b"")]),
    "body swapped": lambda: judged(signed(), value=VALUE.replace(b"[]", b"[ ]")),
    "key swapped": lambda: judged(signed(), key=b"customer-6"),
    "key taken away": lambda: judged(signed(), key=None),
    "key emptied": lambda: judged(signed(key=None), key=b""),
    "reply-to swapped": lambda: judged([*signed(), ("reply-to", b"elsewhere")]),
    "reply-to taken away": lambda: judged(signed()[:1] + signed()[2:]),
    "envelope put around": lambda: judged(
        [*signed(), ("content-type", b"application/cloudevents+json")]
    ),
    "another's key": lambda: judged(signed(Signer(OTHER_SEED, "shop-1", "units"))),
    "unknown key": lambda: judged(signed(Signer(SEED, "shop-2", "units"))),
    "for somebody else": lambda: judged(signed(Signer(SEED, "shop-1", "staging"))),
    "too long": lambda: judged(signed(Signer(SEED, "shop-1", "units", lifetime_seconds=3_601))),
    "reversed": lambda: judged(signed(Signer(SEED, "shop-1", "units", lifetime_seconds=-1))),
    "instantaneous": lambda: judged(signed(Signer(SEED, "shop-1", "units", lifetime_seconds=0))),
    "expired": lambda: judged(signed(at=NOW - 931)),
    "of the future": lambda: judged(signed(at=NOW + 31)),
}
BREACHES = {
    "unsigned": Breach.UNSIGNED,
    "empty": Breach.SIGNATURE_UNREADABLE,
    "unknown key": Breach.KEY_UNKNOWN,
    "for somebody else": Breach.AUDIENCE,
    "too long": Breach.LIFETIME,
    "reversed": Breach.LIFETIME,
    "instantaneous": Breach.LIFETIME,
    "expired": Breach.EXPIRED,
    "of the future": Breach.NOT_YET,
}


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_forgery_does_not_count(forgery: str) -> None:
    assert FORGERIES[forgery]() is BREACHES.get(forgery, Breach.FORGED)


def test_clocks_may_differ_by_the_skew() -> None:
    for at in (NOW - 929, NOW - 930, NOW + 30):
        assert isinstance(judged(signed(at=at)), TrustedKey)


def test_of_a_repeated_header_the_last_counts_for_the_signature_as_for_reading() -> None:
    twice: list[tuple[str, bytes | None]] = [("reply-to", b"first"), *HEADERS]
    assert isinstance(judged(signed(headers=twice)), TrustedKey)
    assert isinstance(judged([(HEADER, b"nonsense"), *signed()]), TrustedKey)
    assert judged([*signed(), (HEADER, b"nonsense")]) is Breach.SIGNATURE_UNREADABLE


def test_what_middlemen_change_is_not_signed() -> None:
    more: list[tuple[str, bytes | None]] = [("traceparent", b"00-x"), ("ce_id", b"9"), ("x", None)]
    assert isinstance(judged([*more, *signed(), *more]), TrustedKey)


@pytest.mark.parametrize(
    "header",
    [
        "v2 shop-1 units 1 2 {s}",
        "v1 shop-1 units 1 2",
        "v1  shop-1 units 1 2 {s}",
        "v1 shop-1 units 1 2 {s} ",
        "v1 shop-1 units 01 2 {s}",
        "v1 shop-1 units +1 2 {s}",
        "v1 shop-1 units 1 1000000000000 {s}",
        "v1 shop-1 units 1 2 {s}=",
        "v1 shop-1 units 1 2 AAAA",
        "v1 shöp-1 units 1 2 {s}",
        "v1 " + "k" * 129 + " units 1 2 {s}",
        "v1 shop-1 units 1 2\n {s}",
        "x" * 10_000,
    ],
)
def test_the_header_has_one_form(header: str) -> None:
    signature = b64encode(bytes(64)).decode()
    assert read_signature(header.format(s=signature).encode()) is None
    assert read_signature(f"v1 shop-1 units 1 2 {signature}".encode()) is not None


def test_a_signature_has_one_spelling() -> None:
    """Base64 leaves four bits of the last character unused; they must be zero."""
    text = "v1 k a 1 2 " + b64encode(bytes(64)).decode()
    assert read_signature(text.encode()) is not None
    assert read_signature(text.replace("A==", "B==").encode()) is None


# --- the guards are needed ------------------------------------------------------------------------


def _without_line(number: int) -> Callable[..., bytes]:
    def shortened(*arguments: Any) -> bytes:
        lines = _signing_input(*arguments).split(b"\n", 5)
        del lines[number]
        return b"\n".join(lines)

    return shortened


_signing_input = signing.signing_input
GUARDS: dict[str, tuple[str, Any]] = {
    "the value is signed": (
        "body swapped",
        (signing, "signing_input", _without_line(5)),
    ),
    "the Kafka key is signed": (
        "key swapped",
        (signing, "signing_input", _without_line(2)),
    ),
    "the content type is signed": (
        "envelope put around",
        (signing, "signing_input", _without_line(3)),
    ),
    "the reply topic is signed": (
        "reply-to swapped",
        (signing, "signing_input", _without_line(4)),
    ),
    "times are judged": ("expired", (signing, "_untimely", lambda *_: None)),
    "lifetimes are bounded": ("too long", (signing, "_untimely", lambda *_: None)),
    "the future is not believed": ("of the future", (signing, "_untimely", lambda *_: None)),
}


@pytest.mark.parametrize("guard", GUARDS)
def test_without_the_guard_the_forgery_counts(guard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forgery, (owner, name, instead) = GUARDS[guard]
    monkeypatch.setattr(owner, name, instead)
    monkeypatch.setattr(signatures, name, instead, raising=False)
    assert isinstance(FORGERIES[forgery](), TrustedKey)


def test_without_verifying_anybodys_signature_counts() -> None:
    credulous = replace(INTAKE, verify=lambda *_: True)
    forged = signed(Signer(OTHER_SEED, "shop-1", "units"))
    assert judged(forged) is Breach.FORGED
    assert isinstance(judged(forged, intake=credulous), TrustedKey)


def test_without_the_audience_a_unit_for_staging_counts_in_production() -> None:
    for_staging = signed(Signer(SEED, "shop-1", "staging"))
    assert judged(for_staging) is Breach.AUDIENCE
    assert isinstance(judged(for_staging, intake=replace(INTAKE, audience="staging")), TrustedKey)


def test_nothing_is_verified_that_cannot_count() -> None:
    """So that a flood of nonsense costs no mathematics."""
    asked: list[bytes] = []

    def verify(public_key: bytes, signature: bytes, message: bytes) -> bool:
        asked.append(message)
        return False

    counting = replace(INTAKE, verify=verify)
    for name in BREACHES:
        headers = {
            "unsigned": HEADERS,
            "empty": [*HEADERS, (HEADER, b"")],
            "expired": signed(at=NOW - 931),
        }.get(name, signed(Signer(SEED, "nobody", "units")))
        judged(headers, intake=counting)
    assert asked == []
    judged(signed(), intake=counting)
    assert len(asked) == 1


# --- what is said of a record that is not genuine -------------------------------------------------


def unauthentic(value: bytes, *headers: tuple[str, bytes | None]) -> Any:
    return read_unauthentic(value, headers, 1_000, Breach.FORGED)


def test_only_the_id_is_read_of_a_record_that_is_not_genuine() -> None:
    value = b'{"id": "u", "operations": [{"op": "x"}], "metadata": {"a": 1}, "timeout_ms": "x"}'
    seen = unauthentic(value, ("reply-to", b"nowhere"), ("traceparent", b"x"))
    assert isinstance(seen, RefusedEarly)
    assert [each.code for each in seen.problems] == ["forbidden"]
    assert (seen.id, seen.digest, seen.metadata, seen.reply_to) == ("u", None, None, None)
    assert (seen.traceparent, seen.breach) == (None, Breach.FORGED)


def test_what_is_broken_and_not_genuine_is_a_dead_letter_without_an_answer() -> None:
    for broken in (b"no json", b'{"id": "u", "a": 1, "a": 2}', b'{"id": "u", "a": NaN}', b"[]"):
        seen = unauthentic(broken)
        assert isinstance(seen, DeadLetter)
        assert (seen.code, seen.answer) == ("malformed", None)
    for nameless in (b'{"operations": []}', b'{"id": ""}', b'{"cancel": ""}'):
        assert isinstance(unauthentic(nameless), DeadLetter)
    too_large = unauthentic(b" " * 1_001)
    assert isinstance(too_large, DeadLetter)
    assert too_large.code == "too_large"


def test_a_cancel_that_is_not_genuine_is_forgotten() -> None:
    assert unauthentic(b'{"cancel": "u"}') == RefusedCancel("u", Breach.FORGED)


def test_the_id_in_an_envelope_is_that_of_its_data() -> None:
    envelope = b'{"specversion": "1.0", "id": "event", "data": {"id": "u"}}'
    seen = unauthentic(envelope, ("content-type", b"application/cloudevents+json"))
    assert isinstance(seen, RefusedEarly)
    assert seen.id == "u"


# --- keys -----------------------------------------------------------------------------------------


def test_keys_travel_as_openssl_writes_them() -> None:
    public_key = signatures.public_key_of(SEED)
    assert signatures.read_private_key(signatures.private_pem(SEED)) == SEED
    assert signatures.read_public_key(signatures.public_pem(public_key)) == public_key
    assert signatures.read_public_key(b64encode(public_key).decode() + "\n") == public_key


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AAAA",
        b64encode(bytes(32)).decode(),
        b64encode(b"\x01" + bytes(31)).decode(),
        signatures.private_pem(SEED),
        signatures.public_pem(b"x"),
        "-----BEGIN PUBLIC KEY-----\nAAAA",
        "ünicode",
    ],
)
def test_what_is_no_public_key_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(KeyUnusable) as caught:
        signatures.read_public_key(text)
    assert not text or text not in str(caught.value)


def test_a_private_keys_file_that_is_none_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key.pem"
    for text in ("", signatures.public_pem(bytes(32)), "x" * 20_000):
        file.write_text(text)
        with pytest.raises(KeyUnusable):
            signatures.load_private_key(file)
    with pytest.raises(KeyUnusable, match="cannot be read"):
        signatures.load_private_key(tmp_path / "missing.pem")
    file.write_text(signatures.private_pem(SEED))
    assert signatures.load_private_key(file) == SEED
