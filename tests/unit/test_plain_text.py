"""Nothing in a stranger's text moves a terminal's cursor, ends a line or turns it around."""

from __future__ import annotations

import json
import sys

import pytest

from coordinator.cli import output
from coordinator.plain_text import lines, one_line, plain_json

HOSTILE = "a\x1b[2J\r\x07\x7f\x85\x9b31m\u2028\u2029\u202e\u2066\u200fz\n\té\U0001f600"
ACTING = set(HOSTILE) - set("a[2J31mzé\U0001f600")


def test_texts_and_json_keep_everything_as_escapes() -> None:
    assert not ACTING & set(one_line(HOSTILE))
    assert one_line("\x1b\u202e") == "\\x1b\\u202e"
    assert ACTING & set(lines(HOSTILE)) == {"\n", "\t"}
    shown = plain_json(json.dumps({"n": HOSTILE}, ensure_ascii=False))
    assert not ACTING & set(shown)
    assert json.loads(shown) == {"n": HOSTILE}
    assert one_line("plain é") == "plain é"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_the_commands_show_is_plain(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    """The key in an error is the sender's; whoever lists parked units looks at it."""
    monkeypatch.setattr(output, "is_terminal", lambda: terminal)
    record = {"unit": "u", "message": HOSTILE, "outcome": {"key": HOSTILE}}
    output.show_rows([record], ["unit", "message", "outcome"], empty="none")
    output.show_record(record)
    sys.stdout.flush()
    seen = capsys.readouterr().out
    assert not ACTING & set(seen) - {"\n"}
    assert "\\u202e" in seen
