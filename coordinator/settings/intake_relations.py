"""How intakes go together: with each other, with topics, with what the journal remembers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from coordinator.settings.intakes import Grant, Intake, Signed
from coordinator.settings.models import Topics, Units
from coordinator.toml_reading import Place

Found = Iterator[tuple[Place, str]]
Fields = frozenset[str] | None
"""None means the whole record."""

_DAY_SECONDS = 86_400


def intake_mistakes(
    intakes: Mapping[int, Intake], topics: Topics | None, units: Units | None
) -> Found:
    """Give every broken relation of the valid intakes."""
    if not intakes:
        return
    if topics is not None:
        yield from _topics_replaced(topics)
        yield from _topics_apart(intakes, topics)
    yield from _audiences_apart(intakes)
    for number, intake in intakes.items():
        at = ("intake", str(number))
        yield from _grants((*at, "grants"), intake.grants)
        if intake.signed is not None:
            yield from _keys((*at, "signed"), intake.signed, intake.grants)
            if units is not None:
                yield from _age((*at, "signed"), intake.signed, units)


def _topics_replaced(topics: Topics) -> Found:
    """Nothing is read beside the intakes: a topic without grants would undo all of them."""
    if "units" in topics.model_fields_set:
        yield ("topics", "units"), "is not read beside [[intake]] tables; name it in one of them"
    if "reply_to" in topics.model_fields_set:
        yield ("topics", "reply_to"), "is not used beside [[intake]] tables; each has its own"


def _topics_apart(intakes: Mapping[int, Intake], topics: Topics) -> Found:
    first: dict[str, int] = {}
    for number, intake in intakes.items():
        at = ("intake", str(number), "topic")
        other = first.setdefault(intake.topic, number)
        if other != number:
            yield at, f"is the topic of intake.{other} as well; put their grants together"
        for role in ("outcomes", "dead_letters"):
            if intake.topic == getattr(topics, role):
                yield at, f"is the same topic as topics.{role}"
    for number, intake in intakes.items():
        at = ("intake", str(number), "reply_to")
        for topic in intake.reply_to:
            if topic in first:
                yield at, f"holds the topic of intake.{first[topic]}, where outcomes must not go"
            if topic == topics.dead_letters:
                yield at, "holds topics.dead_letters, where outcomes must not go"


def _audiences_apart(intakes: Mapping[int, Intake]) -> Found:
    first: dict[str, int] = {}
    for number, intake in intakes.items():
        if intake.signed is None:
            continue
        other = first.setdefault(intake.signed.audience or intake.topic, number)
        if other != number:
            yield (
                ("intake", str(number), "signed", "audience"),
                f"is that of intake.{other} as well: what is signed for one could be replayed on "
                "the other",
            )


def _grants(at: Place, grants: Sequence[Grant] | None) -> Found:
    for number, grant in enumerate(grants or ()):
        here = (*at, str(number), "fields")
        if grant.fields is None:
            continue
        if "delete" in grant.operations:
            yield here, "delete removes whole records; grant it by itself, without fields"
        if not grant.fields and set(grant.operations) != {"check"}:
            yield here, "is empty; only a check can do without any field"


def _keys(at: Place, signed: Signed, grants: Sequence[Grant] | None) -> Found:
    ids: dict[str, int] = {}
    contents: dict[str, int] = {}
    for number, key in enumerate(signed.keys):
        here = (*at, "keys", str(number))
        if ids.setdefault(key.id, number) != number:
            yield (*here, "id"), f"is the id of keys.{ids[key.id]} as well"
        content = key.public_key
        if content is not None and contents.setdefault(content, number) != number:
            yield here, f"is the same key as keys.{contents[content]}"
        yield from _grants((*here, "grants"), key.grants)
        if grants is not None and key.grants is not None:
            yield from _beyond((*here, "grants"), key.grants, grants)


def _beyond(at: Place, narrower: Sequence[Grant], wider: Sequence[Grant]) -> Found:
    """A key can do no more than its intake; a grant that says so is a misunderstanding."""
    allowed = _by_operation(wider)
    for number, grant in enumerate(narrower):
        for operation in grant.operations:
            if not _holds(allowed.get((grant.entity, operation), ()), grant.fields):
                yield (
                    (*at, str(number)),
                    f"goes beyond the grants of its intake in {operation} on {grant.entity}",
                )


def _holds(known: Fields | tuple[()], wanted: Sequence[str] | None) -> bool:
    """Whether what is known covers what is wanted; ``()`` is nothing at all."""
    if known is None:
        return True
    return isinstance(known, frozenset) and wanted is not None and known.issuperset(wanted)


def _by_operation(grants: Sequence[Grant]) -> dict[tuple[str, str], Fields]:
    allowed: dict[tuple[str, str], Fields] = {}
    for grant in grants:
        for operation in grant.operations:
            at = (grant.entity, operation)
            known = allowed.get(at, frozenset())
            whole = grant.fields is None or known is None
            allowed[at] = None if whole else (known or frozenset()) | set(grant.fields or ())
    return allowed


def _age(at: Place, signed: Signed, units: Units) -> Found:
    """A replay must meet the id that it repeats (F4): it has to expire before that is forgotten."""
    longest = signed.max_age_seconds + 2 * signed.skew_seconds
    if longest >= units.retention_days * _DAY_SECONDS:
        yield (
            (*at, "max_age_seconds"),
            "with twice skew_seconds must be less than units.retention_days: a unit could be "
            "replayed after its id is forgotten",
        )
