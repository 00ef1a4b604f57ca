"""The REST API says what the admin API says, and its document describes all of it."""

from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from faststream_outbox.admin import DeadLetters
from faststream_outbox.admin.admin import OutboxAdmin

from .served import HOSTILE


async def get(client: httpx.AsyncClient, path: str) -> Any:
    answer = await client.get(f"api/{path}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_looks_are_those_of_the_admin_api(client: httpx.AsyncClient, admin: OutboxAdmin) -> None:
    overview = await get(client, "overview")
    assert overview["state"] == "standing"
    assert {each["queue"] for each in overview["queues"]} == {each.queue for each in await admin.queues()}
    queues = await get(client, "queues")
    assert queues[0]["queue"] == "emails=>kafka:emails"
    assert queues[0]["backlog"] == {"rows": 64, "is_whole": True}
    assert [each["queue"] for each in await get(client, "queues?behind=orders&limit=1")] == ["reminders"]
    [row] = await get(client, "rows?queue=orders&limit=1")
    assert row["row"]["payload"] == '{"order_id": 1}'
    assert row["row"]["id"] == str((await admin.seen("orders", limit=1))[0].row.id)
    assert [each["state"] for each in await get(client, "rows?queue=reminders&state=timer")] == ["timer"] * 18
    groups = await get(client, "dead-letters/groups")
    expected = (await admin.dead_letters.groups()).groups
    assert [(each["queue"], each["kind"], each["count"], each["example"]) for each in groups["groups"]] == [
        (each.queue, each.kind, each.count, each.example) for each in expected
    ]
    assert await get(client, "forwarders") == []
    assert "problem" in {each["grade"] for each in await get(client, "findings")}


async def test_large_numbers_stay_exact(client: httpx.AsyncClient) -> None:
    [letter] = await get(client, "dead-letters/9007199254740994")
    assert letter["row"]["id"] == "9007199254740994"
    assert letter["row"]["payload"] == '{"invoice": 9007199254740991, "amount": 12.50}'
    letters = await get(client, "dead-letters?queue=imports&max_bytes=4")
    assert [(each["row"]["id"], each["size"]) for each in letters] == [("7", len(HOSTILE)), ("8", 4), ("9", 50_000)]
    assert [each["row"]["payload"] for each in letters] == [HOSTILE[:4], {"base64": "AP8QQg=="}, "0123"]
    kinds = await get(client, "dead-letters?kind=TimeoutError&limit=1000")
    assert len(kinds) == 26


async def test_letters_are_changed_when_that_is_said(client: httpx.AsyncClient, admin: OutboxAdmin) -> None:
    asked: dict[str, Any] = {"kind": "TimeoutError", "why": "billing is back"}
    expected = {"action": "replay", "dry_run": True, "selected": 26, "done": 0, "left": 26}
    assert (await client.post("api/dead-letters/replay", json=asked)).json() == expected
    assert await admin.dead_letters.count(queue="invoices") == 31
    done = await client.post("api/dead-letters/replay", json=asked | {"dry_run": False})
    assert done.json() == {"action": "replay", "dry_run": False, "selected": 26, "done": 26, "left": 0}
    discard = {"ids": ["7", 8], "dry_run": False}
    assert (await client.post("api/dead-letters/discard", json=discard)).json()["done"] == 2
    [discarded, replayed] = await get(client, "audit")
    assert (discarded["action"], discarded["what"]) == ("discard", {"ids": ["7", "8"]})
    assert (replayed["who"], replayed["affected"], replayed["why"]) == ("alice@shop.example", 26, "billing is back")
    for wrong, status in (({}, 400), ({"all": False}, 400), ({"quue": "orders"}, 422), ({"ids": [2**63]}, 400)):
        answer = await client.post("api/dead-letters/discard", json={"dry_run": False, **wrong})
        assert answer.status_code == status, wrong
        assert [*answer.json()] == ["error"]
    assert await admin.dead_letters.count() == 6
    visitor = await client.post("api/dead-letters/discard", json=discard, headers={"x-person": "visitor"})
    assert visitor.status_code == 403
    assert visitor.json() == {"error": "you may look, and change nothing"}


async def test_what_was_done_is_said_though_the_database_goes_away(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, fails = DeadLetters.groups, False

    async def groups(self: DeadLetters, **options: Any) -> Any:
        nonlocal fails
        fails = not fails
        if not fails:
            raise ConnectionResetError
        return await original(self, **options)

    await client.get("dead")
    monkeypatch.setattr(DeadLetters, "groups", groups)
    done = await client.post("api/dead-letters/replay", json={"kind": "TimeoutError", "dry_run": False})
    assert done.status_code == 200
    assert done.json() == {"action": "replay", "dry_run": False, "selected": 26, "done": 26, "left": None}
    token = {"form": client.cookies["outbox_form"]}
    fails = True
    answer = await client.post("change", data=token | {"action": "discard", "queue": "imports"})
    assert answer.status_code == 303
    fails = False
    page = (await client.get("dead")).text
    assert "Discarded 3 dead letters." in page
    assert "there may be others" in page
    fails = True
    nothing = await client.post("change", data=token | {"action": "discard", "queue": "imports"})
    assert nothing.status_code == 503, "nothing was done"


async def test_answers_are_bounded(client: httpx.AsyncClient) -> None:
    for path in ("dead-letters?limit=1000&max_bytes=1000000", "rows?queue=orders&limit=1000&max_bytes=1000000"):
        answer = await client.get(f"api/{path}")
        assert answer.status_code == 400
        assert answer.json() == {"error": "limit, max_bytes: together they may be 67108864 bytes"}


async def test_pauses_for_all_processes(client: httpx.AsyncClient, admin: OutboxAdmin) -> None:
    paused = await client.post("api/pauses", json={"queue": "orders", "seconds": 60, "why": "a bad deploy"})
    assert paused.json()["scope"] == {"queue": "orders", "forwarder": None, "key": None}
    assert [each["why"] for each in await get(client, "pauses")] == ["a bad deploy"]
    for wrong in (
        {},
        {"queue": "orders", "forwarder": "f"},
        {"queue": "o", "seconds": 1, "until": "2090-01-01T00:00Z"},
    ):
        assert (await client.post("api/pauses", json=wrong)).status_code == 400, wrong
    visitor = {"x-person": "visitor"}
    for path in ("pauses", "pauses/resume"):
        assert (await client.post(f"api/{path}", json={"queue": "orders"}, headers=visitor)).status_code == 403
    assert (await client.post("api/pauses/resume", json={"queue": "orders"})).json() == {"was_paused": True}
    assert (await client.post("api/pauses/resume", json={"queue": "orders"})).json() == {"was_paused": False}
    assert not await admin.pauses()


def test_the_document_describes_every_answer(app: FastAPI) -> None:
    document = app.openapi()
    assert len(document["paths"]) == 13
    for path, methods in document["paths"].items():
        assert path.startswith("/outbox/api/"), "pages are not in it"
        for method in methods.values():
            schema = method["responses"]["200"]["content"]["application/json"]["schema"]
            assert "$ref" in schema or "$ref" in schema["items"], path
            assert {"400", "403", "422", "503"} <= method["responses"].keys()
            assert method["responses"]["422"]["content"]["application/json"]["schema"]["$ref"].endswith("/Problem")
            assert method["description"]
    identity = document["components"]["schemas"]["RowAnswer"]["properties"]["id"]
    assert identity["type"] == "string"
