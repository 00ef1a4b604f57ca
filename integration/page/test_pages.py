"""Each page, as a browser without JavaScript gets it."""

import html
import re
from urllib.parse import urlencode

import httpx

from faststream_outbox.admin.admin import OutboxAdmin

from .conftest import BASE
from .served import HOSTILE, make_app, make_site_admin, run_sql

PAGES = ("", "queue?name=orders", "dead", "letters?queue=invoices", "letter?id=7", "pauses", "audit", "examine")


async def form(client: httpx.AsyncClient, address: str) -> dict[str, str]:
    """The hidden fields of the form of a page."""
    page = (await client.get(address)).text
    return {
        name: html.unescape(value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', page)
    }


async def test_each_page_protects_itself(client: httpx.AsyncClient) -> None:
    for page in PAGES:
        answer = await client.get(page)
        assert answer.status_code == 200, answer.text
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-content-type-options"] == "nosniff"
        # What the policy would refuse, and what would ask another host.
        foreign = r"<[^>]+ (style|on\w+)=|<style|<script(?! src=\"static/)|(src|href)=\"(https?:|//)"
        assert not re.search(foreign, answer.text), page
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie


async def test_a_stranger_sees_nothing(client: httpx.AsyncClient) -> None:
    for page in (*PAGES, "raw?id=7", "static/page.css", "api/overview", "api/dead-letters"):
        answer = await client.get(page, headers={"x-person": "stranger"})
        assert answer.status_code == 401, page
        assert answer.json() == {"detail": "who are you?"}


async def test_the_overview_says_how_it_is(client: httpx.AsyncClient) -> None:
    page = (await client.get("")).text
    assert "<h1>Standing</h1>" in page
    assert "taken long ago: emails=&gt;kafka:emails" in page
    rows = re.findall(
        r'<th scope="row"><a href="(queue[^"]*)">([^<]*)</a></th>\s*<td[^>]*><span class="chip \w+">(\w+)<', page
    )
    assert [(html.unescape(name), state) for _, name, state in rows] == [
        ("emails=>kafka:emails", "Standing"),  # it comes first
        ("imports", "Empty"),
        ("invoices", "Empty"),
        ("orders", "Flowing"),
        ("reminders", "Timers"),
        ("shipments", "Retrying"),
    ]
    queue = await client.get(html.unescape(rows[0][0]))
    assert "customer-64" not in queue.text
    assert "customer 1&#34;" in queue.text
    assert "<svg" in page


async def test_what_a_row_has_is_text(client: httpx.AsyncClient) -> None:
    for address in (
        "letter?id=7",
        "dead?queue=imports",
        "letters?queue=imports",
        f"letters?{urlencode({'key': HOSTILE})}",
    ):
        page = (await client.get(address)).text
        assert "<b>bold</b>" not in page, address
        assert "&lt;b&gt;bold&lt;/b&gt;" in page, address
        assert "{{ 7 * 7 }}" in page, "it is no template"
    raw = await client.get("raw?id=7")
    assert raw.content == HOSTILE.encode()
    assert raw.headers["content-type"] == "application/octet-stream"
    assert raw.headers["content-disposition"].startswith("attachment")
    assert "sandbox" in raw.headers["content-security-policy"]


async def test_a_letter_is_shown_as_exactly_as_it_is(client: httpx.AsyncClient) -> None:
    page = (await client.get("letter?id=9007199254740994")).text
    assert "9007199254740991" in page, "a number that JavaScript cannot hold"
    assert "12.50" in page, "not 12.5"
    binary = (await client.get("letter?id=8")).text
    assert "00000000  00 ff 10 42" in binary
    long = (await client.get("letter?id=9")).text
    assert "Cut off after 16,384 bytes." in long
    assert "0123456789" * 1638 in long
    assert "0123456789" * 1640 not in long
    assert len((await client.get("raw?id=9")).content) == 50_000
    assert (await client.get("letter?id=12345")).status_code == 404
    assert (await client.get("letter?id=x")).status_code == 400


async def test_a_group_is_replayed_and_no_other_letter(client: httpx.AsyncClient, admin: OutboxAdmin) -> None:
    page = (await client.get("dead")).text
    [which] = re.findall(r'"change\?action=replay&amp;([^"]*kind=TimeoutError)"', page)
    fields = await form(client, f"change?action=replay&{html.unescape(which)}")
    answer = await client.post("change", data=fields | {"why": "billing is back"})
    assert answer.status_code == 303
    assert answer.headers["location"] == "dead"
    assert await admin.dead_letters.count(queue="invoices") == 5, "ReadTimeoutError is another type"
    [line] = await admin.audit()
    assert (line.who, line.action, line.affected, line.why) == ("alice@shop.example", "replay", 26, "billing is back")
    assert "Replayed 26 dead letters" in (await client.get("dead")).text
    assert "Replayed" not in (await client.get("dead")).text, "it is said once"
    assert "Discarded" not in (await client.get("dead?did=discard&count=9")).text, "an address says nothing"
    assert "billing is back" in (await client.get("audit")).text


async def test_what_fails_meanwhile_was_not_confirmed(
    client: httpx.AsyncClient, admin: OutboxAdmin, database_url: str
) -> None:
    fields = await form(client, "change?action=discard&queue=imports")
    run_sql(database_url, "UPDATE outbox_dlq SET failed_at = now() WHERE id = 9")
    await client.post("change", data=fields)
    assert [letter.row.id for letter in await admin.dead_letters.list(queue="imports")] == [9]


async def test_pauses_are_made_and_ended(client: httpx.AsyncClient, admin: OutboxAdmin) -> None:
    fields = await form(client, "pauses?queue=orders")
    answer = await client.post("pauses", data=fields | {"queue": "orders", "seconds": "3600", "why": HOSTILE})
    assert answer.headers["location"] == "pauses"
    assert "Paused for all processes." in (await client.get("pauses")).text
    [pause] = await admin.pauses()
    assert (pause.scope.queue, pause.who, pause.why) == ("orders", "alice@shop.example", HOSTILE)
    assert 3500 < (pause.seconds_left or 0) <= 3600
    for address in ("", "pauses", "queue?name=orders"):
        page = (await client.get(address)).text
        assert "by alice@shop.example" in page or "alice@shop.example</td>" in page
        assert "&lt;b&gt;bold" in page
        assert "<b>bold" not in page
    fields = await form(client, "pauses")
    assert fields["which"] == "queue=orders"
    answer = await client.post("resume", data=fields)
    assert answer.headers["location"] == "pauses"
    assert "Resumed." in (await client.get("pauses")).text
    assert not await admin.pauses()
    for seconds in ("1000000000000000", "-5", "x"):
        wrong = await client.post("pauses", data={"form": fields["form"], "queue": "orders", "seconds": seconds})
        assert wrong.status_code == 400, seconds
    assert not await admin.pauses()
    refused = await client.post("pauses", data={"form": fields["form"]})
    assert refused.status_code == 400
    assert "name a forwarder, or a queue, or a key" in refused.text


async def test_a_visitor_changes_nothing(client: httpx.AsyncClient, admin: OutboxAdmin) -> None:
    visitor = {"x-person": "visitor"}
    for page in PAGES[:-1]:
        text = (await client.get(page, headers=visitor)).text
        assert not re.search(r"<form method=\"post\"|change\?action", text), page
    token = client.cookies["outbox_form"]
    for path, fields in (
        ("change", {"action": "discard", "queue": "invoices"}),
        ("change", {"action": "replay", "queue": "invoices"}),
        ("pauses", {"queue": "orders"}),
        ("resume", {"queue": "orders"}),
    ):
        answer = await client.post(path, data=fields | {"form": token}, headers=visitor)
        assert answer.status_code == 403, path
    assert (await client.get("change?action=replay&queue=invoices", headers=visitor)).status_code == 403
    assert await admin.dead_letters.count(queue="invoices") == 31
    assert not await admin.audit()
    assert not await admin.pauses()


async def test_what_other_sites_send_is_refused(client: httpx.AsyncClient, admin: OutboxAdmin) -> None:
    fields = await form(client, "change?action=discard&queue=imports")
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": "http://other.example"},
        {"origin": "null"},
        {"origin": "http://shop.example", "sec-fetch-site": "cross-site"},
    ):
        answer = await client.post("change", data=fields, headers=headers)
        assert answer.status_code == 403, headers
        answer = await client.post("api/dead-letters/discard", json={"all": True, "dry_run": False}, headers=headers)
        assert answer.status_code == 403, headers
    assert await admin.dead_letters.count() == 34
    good = {"origin": "http://shop.example", "sec-fetch-site": "same-origin"}
    assert (await client.post("change", data=fields, headers=good)).status_code == 303


async def test_forms_without_their_token_are_refused(client: httpx.AsyncClient, admin: OutboxAdmin) -> None:
    fields = await form(client, "change?action=discard&queue=imports")
    token = fields.pop("form")
    for given in ({}, {"form": ""}, {"form": "wrong"}):
        answer = await client.post("change", data=fields | given)
        assert answer.status_code == 403
        assert "this form is not one" in answer.text
    client.cookies.clear()
    for other in ("", token):
        assert (await client.post("change", data=fields | {"form": other})).status_code == 403
    assert await admin.dead_letters.count() == 34


async def test_a_key_may_have_line_breaks(client: httpx.AsyncClient, admin: OutboxAdmin, database_url: str) -> None:
    run_sql(database_url, "UPDATE outbox_dlq SET key = E'a\\nb' WHERE id = 8")
    key = "a\nb"
    fields = await form(client, f"change?action=discard&{urlencode({'key': key})}")
    assert "\n" not in "".join(fields.values()), "a browser would send another line break"
    await client.post("change", data=fields)
    assert [letter.row.id for letter in await admin.dead_letters.list(queue="imports")] == [7, 9]


async def test_what_is_asked_wrongly_is_said_on_a_page(client: httpx.AsyncClient) -> None:
    for address in ("queue", "letters?limit=x", "audit?before=x", "queue?name=orders&state=x"):
        answer = await client.get(address)
        assert answer.status_code == 422, address
        assert "<h1>That cannot be</h1>" in answer.text
        assert answer.headers["x-frame-options"] == "DENY"


async def test_a_page_has_a_bounded_number_of_queues(client: httpx.AsyncClient, database_url: str) -> None:
    run_sql(
        database_url,
        "INSERT INTO outbox (queue, idempotency_key, payload, headers) "
        "SELECT 'many-' || lpad(n::text, 3, '0'), 'many-' || n, '', '{}' FROM generate_series(1, 250) AS n",
    )
    page = (await client.get("")).text
    names = re.findall(r'<th scope="row"><a href="queue[^"]*">([^<]*)<', page)
    assert len(names) == 200
    assert names[0] == "emails=&gt;kafka:emails", "what stands comes first"
    assert page.count("<svg") == 5 + 2 * 200
    assert "200 of 256 queues are shown" in page
    shown: list[str] = []
    address = "?behind="
    while address:
        page = (await client.get(f"./{address}")).text
        shown += re.findall(r'<th scope="row"><a href="queue[^"]*">([^<]*)<', page)
        [address] = re.findall(r'href="\./(\?behind=[^"]+)"', page) or [""]
    assert len(shown) == len({*shown}) == 256
    assert "not plotted" in page


async def test_zero_bytes_and_large_numbers_are_the_askers_fault(client: httpx.AsyncClient) -> None:
    for address in ("queue?name=%00", "dead?key=a%00", "api/rows?queue=%00", "letter?id=99999999999999999999"):
        assert (await client.get(address)).status_code == 400, address
    for address in ("audit?before=99999999999999999999", "api/audit?before=99999999999999999999"):
        assert (await client.get(address)).status_code == 422, address
    token = client.cookies["outbox_form"]
    answer = await client.post("pauses", data={"form": token, "queue": "\x00", "seconds": "900"})
    assert answer.status_code == 400
    assert (await client.post("api/pauses", json={"queue": "\x00"})).status_code == 422


async def test_what_is_no_form_is_refused(client: httpx.AsyncClient) -> None:
    assert (await client.post("change", json={"action": "discard"})).status_code == 415
    long = await client.post("change", data={"why": "x" * 70_000})
    assert long.status_code == 413


async def test_without_a_control_table_the_page_says_what_it_needs(database_url: str) -> None:
    admin, close = make_site_admin(database_url, control=False)
    app = make_app(admin)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
        pauses = await client.get("pauses")
        assert "there is no control table" in pauses.text
        assert "Pause for all processes" not in pauses.text
        assert "there is no control table" in (await client.get("audit")).text
        assert "<h1>Flowing</h1>" in (await client.get("")).text
    await close()


async def test_tables_that_are_not_there_are_named(database_url: str) -> None:
    admin, close = make_site_admin(database_url)  # nobody has created the control table
    app = make_app(admin)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
        page = (await client.get("")).text
        assert "<h1>Broken</h1>" in page
        assert "there is no such table" in page
    await close()


async def test_a_database_that_is_gone_is_said_in_words() -> None:
    admin, close = make_site_admin("postgresql+asyncpg://nobody@127.0.0.1:1/nowhere")
    app = make_app(admin)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=BASE) as client:
        page = await client.get("")
        assert page.status_code == 503
        assert "The database did not answer" in page.text
        answer = await client.get("api/overview")
        assert answer.status_code == 503
        assert answer.json()["error"]
    await close()
