"""Reading units from a file: where each begins and ends, and what is said when it is no JSON."""

from pathlib import Path

import pytest

from coordinator.cli.submissions import FileUnreadable, read_file, split_values


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ('{"id":"a"}', ['{"id":"a"}']),
        (' { "id": "a",\n "n": 1.10 }\n', ['{ "id": "a",\n "n": 1.10 }']),
        ('{"id":"a"}\n{"id":"b"}\n\n{"id":"c"}', ['{"id":"a"}', '{"id":"b"}', '{"id":"c"}']),
        ('[{"id":"a"} , {"id":"b"}]\n', ['{"id":"a"}', '{"id":"b"}']),
        ("[]", []),
        ("", []),
        (" \n", []),
        ('{"id":"a","id":"b"}', ['{"id":"a","id":"b"}']),
    ],
)
def test_values_are_cut_out_as_they_stand(text: str, values: list[str]) -> None:
    assert split_values(text, "f") == values


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"id":"a"}\n{"id":', "f:2:7"),
        ('[{"id":"a"} {"id":"b"}]', "f:1:13"),
        ('[{"id":"a"},]', "f:1:13"),
        ('[{"id":"a"}', "f:1:12"),
        ("[", "f:1:2"),
        ("[] x", "f:1:3"),
        ("]", "f:1:1"),
        ("[" * 100_000, "f:1:"),
    ],
)
def test_what_is_no_json_is_told_with_its_place(text: str, place: str) -> None:
    with pytest.raises(FileUnreadable, match=place):
        split_values(text, "f")


def test_a_byte_order_mark_is_no_part_of_the_unit(tmp_path: Path) -> None:
    path = tmp_path / "units.json"
    path.write_bytes(b'\xef\xbb\xbf{"id":"\xc3\xbc"}')
    assert read_file(str(path)) == [b'{"id":"\xc3\xbc"}']


@pytest.mark.parametrize(
    ("content", "what"), [(b"", "no unit"), (b"\xff", "not UTF-8"), (None, "No such file")]
)
def test_a_file_without_units_is_told(tmp_path: Path, content: bytes | None, what: str) -> None:
    path = tmp_path / "units.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FileUnreadable, match=what):
        read_file(str(path))
