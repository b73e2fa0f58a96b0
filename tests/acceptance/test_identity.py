"""Identity of units: digests, duplicates, ids used again, reply topics (F2, F3, F4, F5, F40)."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest

from tests.acceptance.harness.canonical import digest_of
from tests.acceptance.harness.operations import Json, insert, setting, update
from tests.acceptance.harness.world import World, new_id, new_number

CONTENTS = {
    "white space": '{ "id" : "ID" ,\n\t"operations":[ {"op":"insert", "entity":"sample",'
    '"key":"ID","values":{ } } ] }',
    "order of members": '{"operations":[{"values":{},"key":"ID","entity":"sample","op":"insert"}],'
    '"metadata":{"b":1,"a":2,"B":3,"":4,"\u00e9":5,"\U0001f600":6,"\uffff":7},"id":"ID"}',
    "numbers by their text": '{"id":"ID","metadata":[1,1.0,1e0,1E+0,-0,0.10,1e999,'
    "123456789012345678901234567890],"
    '"operations":[{"op":"insert","entity":"sample","key":"ID","values":{}}]}',
    "escapes": '{"id":"ID","metadata":["\\u0041\\/\\u00e9\\ud83d\\ude00","\\u0000\\u001F\\b\\f\\n'
    '\\r\\t\\"\\\\\\u007f\\u2028"],"operations":[{"op":"insert","entity":"sample","key":"ID",'
    '"values":{}}]}',
    "escaped names": '{"\\u0069d":"ID","operations":[{"op":"insert","entity":"sample","key":"ID",'
    '"values":{"te\\u0078t_":"x"}}]}',
    "empty metadata": '{"id":"ID","metadata":{},"timeout_ms":30000,"operations":[{"op":"insert",'
    '"entity":"sample","key":"ID","values":{}}]}',
    "metadata false": '{"id":"ID","metadata":false,"operations":[{"op":"insert",'
    '"entity":"sample","key":"ID","values":{}}]}',
}


async def test_f3_every_outcome_has_the_digest_of_the_canonical_content(
    world: World, subtests: pytest.Subtests
) -> None:
    """F3: hex SHA-256 of members sorted by code point, numbers by text, minimal escapes."""
    texts = {name: text.replace("ID", new_id()) for name, text in CONTENTS.items()}
    for text in texts.values():
        await world.topics.submit(text)
    for name, text in texts.items():
        with subtests.test(name):
            outcome = await world.result(json.loads(text)["id"], "any", seconds=10)
            assert outcome["status"] == "committed", outcome
            assert outcome["digest"] == digest_of(text)


async def test_f3_a_refused_unit_has_its_digest_too(world: World) -> None:
    """F3: *every* outcome has it, of an early refusal as well."""
    text = json.dumps({"id": new_id(), "operations": [], "metadata": {"n": 1.50}})
    await world.topics.submit(text)
    outcome = await world.result(json.loads(text)["id"], "refused")
    assert (outcome["status"], outcome["digest"]) == ("rejected", digest_of(text))


async def test_f3_same_content_in_other_clothes_is_a_duplicate(
    world: World, subtests: pytest.Subtests
) -> None:
    """F3, F4: order, white space, escapes, key, headers and wrapping are not content."""
    unit_id = new_id()
    body: Json = {
        "id": unit_id,
        "operations": [insert("sample", unit_id, text_="h\u00e9/")],
        "metadata": {"a": 1, "b": 2},
    }
    first = await world.topics.submit(body)
    final = await world.topics.outcome(unit_id)
    spaced = json.dumps(body, indent=3)
    swapped = json.dumps(dict(reversed(body.items()))).replace("/", "\\/")
    event = {"specversion": "1.0", "id": "e", "type": "t", "source": "s", "data": body}
    places = {
        "indented": await world.topics.submit(spaced, key=b"other"),
        "reordered, escaped": await world.topics.submit(swapped, headers=[("x", b"y")]),
        "structured": await world.topics.submit(
            event, headers=[("content-type", b"application/cloudevents+json")]
        ),
        "other partition": await world.topics.submit(body, partition=(first.partition + 1) % 4),
    }
    for name, place in places.items():
        with subtests.test(name):
            answer = await world.topics.answer_to(place, "duplicate", unit_id)
            assert answer.json == final.json | {"duplicate": True}
            assert answer.key == unit_id.encode()
    await world.topics.caught_up()
    assert len(await world.topics.changes(unit_id, 1)) == 1
    row = await world.row("app.samples", unit_id)
    assert row is not None
    assert row["version"] == 1


async def test_f4_other_content_is_id_reused_and_does_not_touch_the_first(
    world: World, subtests: pytest.Subtests
) -> None:
    """F3, F4: metadata, numbers' text and timeout are content; the newcomer's digest is told."""
    unit_id, number = new_id(), new_number()
    body: Json = {
        "id": unit_id,
        "operations": [insert("account", number, balance="1.0")],
        "metadata": {"n": 1},
    }
    await world.topics.submit(body)
    final = await world.result(unit_id)
    others = {
        "metadata": json.dumps(body | {"metadata": {"n": 2}}),
        "number text": json.dumps(body).replace('{"n": 1}', '{"n": 1.0}'),
        "decimal text": json.dumps(body).replace('"1.0"', '"1.00"'),
        "an explicit default": json.dumps(body | {"timeout_ms": 30000}),
        "other operations": json.dumps(body | {"operations": [insert("account", new_number())]}),
    }
    places = {name: await world.topics.submit(text) for name, text in others.items()}
    for name, place in places.items():
        with subtests.test(name):
            answer = (await world.topics.answer_to(place, "duplicate", unit_id)).json
            assert (answer["status"], answer["duplicate"]) == ("rejected", True)
            assert answer["error"]["code"] == "id_reused"
            assert answer["error"]["retryable"] is False
            assert answer["digest"] == digest_of(others[name])
            assert answer["operations"] == []
    assert (await world.daemon.get(f"/v1/units/{unit_id}"))[1]["outcome"] == final
    row = await world.row("accounts", number)
    assert row is not None
    assert (str(row["balance"]), row["version"]) == ("1.00", 1)


async def test_f4_of_a_running_unit_the_duplicate_is_answered_after_its_end(world: World) -> None:
    """F4: remembered, answered after the final outcome; other content needs no such wait."""
    key, number = new_id(), new_number()
    await world.committed(insert("account", number, balance="5"))
    outsider = await world.connect("ledger")
    transaction = outsider.transaction()
    await transaction.start()
    await outsider.execute("SELECT 1 FROM accounts WHERE id = $1 FOR UPDATE", number)
    body: Json = {"id": new_id(), "operations": [setting("account", number, note="held")]}
    await world.topics.submit(body, key=key)
    same = await world.topics.submit(body, key=key)
    elsewhere = await world.topics.submit(body, partition=(same.partition + 1) % 4)
    other = await world.topics.submit(body | {"metadata": 1}, key=key)
    reused = await world.topics.answer_to(other, "duplicate", body["id"])
    assert reused.json["error"]["code"] == "id_reused"
    assert world.topics.outcomes_so_far(body["id"]) == [reused]
    await transaction.rollback()
    final = await world.topics.outcome(body["id"])
    assert final.json["status"] == "committed"
    for place in (same, elsewhere):
        answer = await world.topics.answer_to(place, "duplicate", body["id"])
        assert answer.json == final.json | {"duplicate": True}
        assert (answer.partition, answer.offset) > (final.partition, final.offset)
    assert len(await world.topics.changes(body["id"], 1)) == 1


async def test_f4_a_storm_of_one_id_over_all_partitions_is_applied_once(world: World) -> None:
    """F4, I3: the first admitted is the first, whatever its partition."""
    number = new_number()
    await world.committed(insert("account", number, balance="100"))
    body: Json = {
        "id": new_id(),
        "operations": [
            update("account", number, increment={"balance": "-10"}),
            insert("entry", new_id(), amount="10"),
        ],
    }
    places = [await world.topics.submit(body, partition=n % 4) for n in range(40)]
    final = await world.topics.outcome(body["id"])
    await world.topics.wait(
        lambda: len(world.topics.outcomes_so_far(body["id"])) >= len(places), "all are answered"
    )
    answers = {r.ce_id for r in world.topics.outcomes_so_far(body["id"])}
    duplicates = {f"{body['id']}/duplicate/{place}" for place in places}
    assert answers - duplicates == {f"{body['id']}/outcome"}
    assert len(answers & duplicates) == len(places) - 1
    assert final.json["status"] == "committed"
    row = await world.row("accounts", number)
    assert row is not None
    assert str(row["balance"]) == "90.00"


async def test_f4_a_rejected_unit_is_answered_again_as_it_was(world: World) -> None:
    """F2, F4: a late refusal spends the id; its stored outcome comes again."""
    body: Json = {"id": new_id(), "operations": [setting("account", new_number(), note="x")]}
    await world.topics.submit(body)
    final = await world.result(body["id"])
    assert (final["status"], final["error"]["code"]) == ("rejected", "not_found")
    place = await world.topics.submit(body)
    again = await world.topics.answer_to(place, "duplicate", body["id"])
    assert again.json == final | {"duplicate": True}


async def test_f2_an_early_refusal_leaves_the_id_free(world: World) -> None:
    """F2: nothing in the journal; the id may be used again, even by a good unit."""
    unit_id = new_id()
    refusals: list[tuple[Json, list[tuple[str, bytes]], str]] = [
        ({"operations": []}, [], "invalid"),
        ({"operations": [insert("nobody", 1)]}, [], "unknown_entity"),
        ({"operations": [insert("limit", 1)]}, [], "forbidden"),
        ({"operations": [insert("sample", unit_id)]}, [("reply-to", b"not.allowed")], "forbidden"),
    ]
    for members, headers, code in refusals:
        place = await world.topics.submit({"id": unit_id, **members}, headers=headers)
        answer = await world.topics.answer_to(place, "refused", unit_id)
        assert (answer.json["status"], answer.json["error"]["code"]) == ("rejected", code)
        assert answer.json["duplicate"] is False
        assert not await world.journaled(unit_id)
        assert (await world.daemon.get(f"/v1/units/{unit_id}"))[0] == 404
    good = await world.place(insert("sample", unit_id), id=unit_id)
    assert (await world.result(unit_id))["status"] == "committed"
    final = (await world.daemon.get(f"/v1/units/{unit_id}"))[1]
    place = await world.topics.submit({"id": unit_id, "operations": "nonsense"})
    assert good[1] != place
    answer = await world.topics.answer_to(place, "refused", unit_id)
    assert answer.json["error"]["code"] == "invalid"
    assert (await world.daemon.get(f"/v1/units/{unit_id}"))[1] == final


async def test_f5_the_outcome_record_is_a_cloudevent_with_a_stable_id(world: World) -> None:
    """F5, DESIGN 2.2: key, content type and `ce_*` headers of a final outcome."""
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    unit_id, _ = await world.place(
        insert("sample", new_id()), headers=[("traceparent", traceparent.encode())]
    )
    record = await world.topics.outcome(unit_id)
    assert record.key == unit_id.encode()
    assert record.header("ce_specversion") == "1.0"
    assert record.header("ce_id") == f"{unit_id}/outcome"
    assert record.header("content-type") == "application/json"
    for name in ("ce_type", "ce_source", "ce_time"):
        assert record.header(name), name
    assert (record.header("ce_time") or "").endswith("Z")
    event = (await world.topics.changes(unit_id, 1))[0]
    assert event.header("traceparent") == traceparent


async def test_f40_the_reply_topic_gets_the_outcome_as_well(world: World) -> None:
    """DESIGN 2.2, F4, F40: allow-listed: both topics; of a duplicate, to the newcomer's own."""
    reply = [("reply-to", world.topics.replies_topic.encode())]
    body: Json = {"id": new_id(), "operations": [insert("sample", new_id())]}
    await world.topics.submit(body, headers=reply)
    final = await world.topics.outcome(body["id"])
    copy = await world.topics.outcome(body["id"], topic=world.topics.replies_topic)
    assert (copy.key, copy.value) == (final.key, final.value)
    assert dict(copy.headers) == dict(final.headers)
    silent: Json = {"id": new_id(), "operations": [insert("sample", new_id())]}
    await world.topics.submit(silent)
    first = await world.topics.outcome(silent["id"])
    place = await world.topics.submit(silent, headers=reply)
    answer = await world.topics.answer_to(place, "duplicate", silent["id"])
    replied = await world.topics.outcome(
        silent["id"], "duplicate", topic=world.topics.replies_topic
    )
    assert replied.value == answer.value
    assert replied.json == first.json | {"duplicate": True}
    refused, _ = await world.place(insert("nobody", 1), headers=reply)
    await world.topics.outcome(refused, "refused", topic=world.topics.replies_topic)
    await world.settled()
    finals = [r for r in world.topics.of(world.topics.replies_topic) if r.ce_id == first.ce_id]
    assert finals == []


async def test_f40_a_forbidden_reply_topic_is_an_early_refusal(world: World) -> None:
    """F40: `forbidden`, nothing is sent there, no topic is made. F42: empty counts as absent."""
    stranger = f"{world.name}.stranger"
    names = [stranger.encode(), b"\xff\xfe", world.topics.outcomes_topic.encode(), b" "]
    refused = [
        await world.place(insert("sample", new_id()), headers=[("reply-to", name)])
        for name in names
    ]
    for unit_id, place in refused:
        answer = (await world.topics.answer_to(place, "refused", unit_id)).json
        assert (answer["status"], answer["error"]["code"]) == ("rejected", "forbidden")
        assert not await world.journaled(unit_id)
    allowed, _ = await world.place(insert("sample", new_id()), headers=[("reply-to", b"")])
    null, _ = await world.place(insert("sample", new_id()), headers=[("reply-to", None)])
    assert (await world.result(allowed, "any"))["status"] == "committed"
    assert (await world.result(null, "any"))["status"] == "committed"
    assert stranger not in await world.topics.names()


async def test_f38_a_unit_of_any_id_is_found_over_http_and_by_the_command(world: World) -> None:
    """F1, F38, F41: every printable ASCII character may stand in an id."""
    unit_id = new_id() + "/a?b#c%2F&d=+\"'\\<>~;,:@[]{}|^`$*!()"
    await world.submit(insert("sample", new_id()), id=unit_id)
    final = await world.result(unit_id)
    status, shown = await world.daemon.get(f"/v1/units/{quote(unit_id, safe='')}")
    assert status == 200
    assert shown == {"unit": unit_id, "status": "committed", "outcome": final}
    assert (await world.daemon.get(f"/v1/units/{quote(unit_id + 'x', safe='')}"))[0] == 404
    lines = (await world.cli("units", "show", unit_id)).stdout.splitlines()
    assert json.loads(lines[0])["unit"] == unit_id


async def test_submit_on_the_command_line(world: World) -> None:
    """DESIGN 2.6: `submit FILE` waits, shows the outcome, and exits 0 only on success."""
    good = {"id": new_id(), "operations": [insert("sample", new_id())]}
    bad = {"id": new_id(), "operations": [insert("nobody", 1)]}
    for body, is_good in ((good, True), (bad, False)):
        file = world.folder / f"{body['id']}.json"
        file.write_text(json.dumps(body))
        done = await world.cli("submit", str(file), check=False)
        assert (done.returncode == 0) is is_good, done
        shown = json.loads(done.stdout.splitlines()[0])
        assert shown == await world.result(str(body["id"]), "any")
