"""The documentation holds together: links, codes, F-numbers, log events, examples that parse."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.domain.entity import Mapping
from coordinator.domain.errors import RETRYABLE_CODES, ErrorCode
from coordinator.domain.mapping_json import make_mapping
from coordinator.domain.submission import Cancel, Reading, RefusedEarly, Submission, read
from coordinator.log_events import LogEvent
from coordinator.mapping import load_entities
from coordinator.settings.intakes import Intake
from tests.mapping_samples import FixedDraw

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])

"""Linked already, being written."""

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
F_NUMBER = re.compile(r"\bF([0-9]{1,2})\b")
EVENT = re.compile(r"`([a-z_]+\.[a-z_]+)`")


def prose(page: Path) -> str:
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Anchors as the usual renderers make them of headings."""
    headings = (each.lower().replace("`", "") for each in HEADING.findall(prose(page)))
    return {re.sub(r"[^\w\- ]", "", each).strip().replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for target in LINK.findall(prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            broken.append(target)
    assert broken == []


def test_every_page_can_be_found_from_the_index() -> None:
    seen: set[Path] = set()
    waiting = [DOCS / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        targets = (each.partition("#")[0] for each in LINK.findall(prose(page)))
        waiting += [(page.parent / each).resolve() for each in targets if "://" not in each]
    assert set(DOCS.rglob("*.md")) - seen == set()


def test_every_error_code_is_described_with_its_retryability() -> None:
    rows = re.findall(
        r"^\| `(\w+)` \| .+? \| (yes|no) \| .+ \|$", (REFERENCE / "outcomes.md").read_text(), re.M
    )
    described = {code: retryable == "yes" for code, retryable in rows}
    assert described == {each.value: each in RETRYABLE_CODES for each in ErrorCode}


def test_every_ruling_is_cited_and_units_keep_their_order() -> None:
    cited = {int(n) for page in REFERENCE.glob("*.md") for n in F_NUMBER.findall(page.read_text())}
    assert cited == set(range(1, 43))
    told = [int(n) for n in re.findall(r"^\*\*F(\d+)", (REFERENCE / "units.md").read_text(), re.M)]
    assert told == sorted(told)


def test_failures_names_events_that_exist() -> None:
    named = set(EVENT.findall((DOCS / "operating" / "failures.md").read_text()))
    other = {
        "backlog.max_units",
        "backlog.max_parked",
        "backlog.max_units_per_second",
        "backlog.max_bytes",
        "kafka.unpacked_batch_max_bytes",
        "max.message",
        "coordinator.undo",
        "coordinator.units",
    }
    assert named - other <= {event.value for event in LogEvent}


@pytest.mark.parametrize("name", ["grants.md", "signed-units.md"])
def test_examples_of_intakes_are_valid(name: str) -> None:
    text = (DOCS / "how-to" / name).read_text(encoding="utf-8")
    tables = [
        table
        for language, example in FENCED.findall(text)
        if language == "toml"
        for table in tomllib.loads(example)["intake"]
    ]
    assert tables
    for table in tables:
        Intake.model_validate(table)


# --- examples -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop() -> Mapping:
    """The sample shop's mapping; its orders draw their keys, as one example supposes."""
    settings: Any = SimpleNamespace(
        entities=ROOT / "config" / "entities.toml",
        stores={
            "ledger": SimpleNamespace(kind="postgresql"),
            "catalog": SimpleNamespace(kind="mongodb"),
        },
        topics=SimpleNamespace(
            units="units", outcomes="outcomes", dead_letters="dlt", changes="changes.{entity}"
        ),
        intake=(),
    )
    entities = [each.entity for each in load_entities(settings)]
    return make_mapping(
        [replace(each, key_default="uuid7") if each.name == "order" else each for each in entities]
    )


def examples(page: Path) -> Iterator[str]:
    for language, text in FENCED.findall(page.read_text(encoding="utf-8")):
        if language == "json":
            yield text


def read_example(text: str, shop: Mapping) -> Reading:
    headers: list[tuple[str, bytes | None]] = []
    if "specversion" in json.loads(text):
        headers.append(("content-type", b"application/cloudevents+json"))
    return read(text.encode(), headers, shop, 262_144, 30_000, frozenset(), FixedDraw())


@pytest.mark.parametrize("name", ["reference/units.md", "how-to/undo-of-your-own.md"])
def test_examples_of_units_are_read_as_units(name: str, shop: Mapping) -> None:
    texts = list(examples(DOCS / name))
    assert texts
    for text in texts:
        reading = read_example(text, shop)
        problems = reading.problems if isinstance(reading, RefusedEarly) else reading
        assert isinstance(reading, Submission | Cancel), (text, problems)


def test_an_example_with_a_mistake_would_be_noticed(shop: Mapping) -> None:
    wrong = '{"id": "x", "operations": [{"op": "check", "entity": "customer", "kee": 5}]}'
    assert isinstance(read_example(wrong, shop), RefusedEarly)


@pytest.mark.parametrize("name", ["outcomes.md", "events.md"])
def test_examples_of_what_is_published_are_json(name: str) -> None:
    texts = list(examples(REFERENCE / name))
    assert texts
    assert all(isinstance(json.loads(text), dict) for text in texts)
