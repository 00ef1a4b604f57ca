"""Pauses and the audit log by command: what is printed, written, and shown elsewhere."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from .conftest import Run, Terminal

Put = Callable[..., None]


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines() if line.strip()]


@pytest.mark.usefixtures("control_table")
def test_a_pause_from_its_beginning_to_its_end(terminal: Terminal, sql: Run) -> None:
    assert terminal.run("pauses").out == "nothing is paused\n"
    said = terminal.run("pause", "--queue", "orders", "--for", "2h", "--by", "alice", "--why", "a bad deploy", "--json")
    assert said.code == 0
    assert (said.json["scope"], said.json["who"], said.json["why"]) == ({"queue": "orders"}, "alice", "a bad deploy")
    until = datetime.fromisoformat(said.json["until"])
    assert abs(until - datetime.now(UTC) - timedelta(hours=2)) < timedelta(minutes=1)
    assert terminal.run("pause", "--queue", "orders", "--key", "k", "--until", "2999-01-31T15:00").code == 0
    assert terminal.run("pause", "--forwarder", "kafka:orders.v1").code == 0
    found = terminal.run("pauses", "--json").json
    assert [each["scope"] for each in found] == [
        {"queue": "orders"},
        {"queue": "orders", "key": "k"},
        {"forwarder": "kafka:orders.v1"},
    ]
    assert found[1]["until"] == "2999-01-31T15:00:00+00:00"
    assert "key 'k' queue 'orders'" in terminal.run("pauses").out
    assert terminal.run("resume", "--queue", "orders", "--key", "k").out == "resumed key 'k' queue 'orders'\n"
    again = terminal.run("resume", "--queue", "orders", "--key", "k")
    assert again.code == 1
    assert again.out == "key 'k' queue 'orders' is not paused; faststream-outbox pauses lists what is\n"
    assert [row[0] for row in sql("SELECT action FROM outbox_control ORDER BY id")] == ["pause"] * 3 + ["resume"]


@pytest.mark.usefixtures("control_table")
def test_what_is_paused_is_shown_everywhere_and_does_not_stand(terminal: Terminal, put: Put) -> None:
    put("orders", count=2, age="2 hours")
    put("others")
    assert terminal.run("status", "--json").json["state"] == "standing"
    assert terminal.run("doctor").code == 1
    terminal.run("pause", "--queue", "others", "--key", "k")
    assert terminal.run("status", "--json").json["state"] == "standing"
    terminal.run("pause", "--queue", "orders", "--by", "alice", "--why", "a bad deploy")
    status = terminal.run("status", "--json").json
    assert status["state"] == "paused"
    assert [each["scope"] for each in status["pauses"]] == [{"queue": "others", "key": "k"}, {"queue": "orders"}]
    said = terminal.run("status").out
    assert "queue 'orders', by alice since" in said
    assert "a bad deploy" in said
    queues = lines(terminal.run("queues").out)
    assert queues[1][:2] == ["orders", "(paused)"]
    assert queues[2][:4] == ["others", "(1", "paused", "key)"]
    [orders, others] = terminal.run("queues", "--json").json
    assert [each["who"] for each in orders["pauses"]] == ["alice"]
    assert [each["scope"] for each in others["pauses"]] == [{"queue": "others", "key": "k"}]
    assert terminal.run("doctor").code == 0
    assert terminal.run("doctor", "--strict").code == 1
    findings = [each for each in terminal.run("doctor", "--json").json if each["check"] == "pauses"]
    assert [each["grade"] for each in findings] == ["warning", "warning"]
    assert findings[0]["advice"] == "faststream-outbox resume --queue others --key k ends it"


@pytest.mark.usefixtures("control_table")
def test_a_forwarder_with_copies_is_paused_with_their_queue(terminal: Terminal, put: Put) -> None:
    put("orders=>redis:x", age="2 hours")
    terminal.run("pause", "--forwarder", "redis:x")
    assert terminal.run("status", "--json").json["state"] == "paused"


@pytest.mark.usefixtures("control_table")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pause"], "name a forwarder, or a queue, or a key"),
        (["pause", "--forwarder", "f", "--queue", "q"], "name a forwarder, or a queue, or a key"),
        (["pause", "--queue", "q", "--for", "2 h"], "--for: must be a number with its unit"),
        (["pause", "--queue", "q", "--until", "tomorrow"], "--until: must be a time like"),
        (["pause", "--queue", "q", "--until", "2020-01-01T00:00"], "until: 2020-01-01 00:00:00+00:00 has passed"),
        (["pause", "--queue", "q", "--until", "2030-01-01", "--for", "1h"], "--until, --for: give one of them"),
        (["pause", "--queue", "q", "--by", ""], "by: must be 1 to 255 bytes"),
        (["pause", "--queue", "a\nb"], "holds the control character"),
        (["resume", "--key", "k" * 1025], "key: must be 1 to 1024 bytes"),
        (["audit", "--action", "dance"], "action: must be one of pause, resume, replay, discard"),
    ],
)
def test_what_is_refused_changes_nothing(terminal: Terminal, sql: Run, arguments: list[str], message: str) -> None:
    said = terminal.run(*arguments)
    assert said.code == 2
    assert message in said.err
    assert sql("SELECT count(*) FROM outbox_control") == [(0,)]


def test_without_a_control_table_each_says_what_to_do(terminal: Terminal, put: Put, bury: Put) -> None:
    put()
    bury(count=2)
    for arguments in (["pause", "--queue", "q"], ["resume", "--queue", "q"], ["pauses"], ["audit"]):
        said = terminal.run(*arguments)
        assert said.code == 2, arguments
        assert "there is no control table" in said.err
        assert "faststream-outbox ddl create --control-table NAME" in said.err
    for arguments in (["status"], ["queues"], ["doctor"], ["dead", "discard", "--all", "--yes"]):
        assert terminal.run(*arguments).code == 0, arguments


@pytest.mark.usefixtures("control_table")
def test_replays_and_discards_are_in_the_log_with_what_was_meant(terminal: Terminal, bury: Put, sql: Run) -> None:
    bury(count=45)
    bury("invoices", count=3, reason="rejected")
    one = terminal.run("dead", "list", "--queue", "invoices", "--json").json[0]["row"]["id"]
    terminal.run("dead", "replay", "--queue", "orders", "--batch", "20", "--yes", "--by", "alice", "--why", "it is up")
    terminal.run("dead", "discard", "--id", str(one), "--yes")
    terminal.run("dead", "discard", "--reason", "unknown", "--yes")
    terminal.run("dead", "replay", "--all")
    said = terminal.run(
        "dead", "discard", "--all", "--older-than", "1s", "--failed-after", "2020-01-01", "--yes", "--json"
    )
    assert said.json["done"] == 2
    found = terminal.run("audit", "--json").json
    assert [(each["action"], each["what"], each["affected"]) for each in found] == [
        ("discard", {"older_than": "0:00:01", "failed_after": "2020-01-01T00:00:00+00:00"}, 2),
        ("discard", {"ids": [one]}, 1),
        ("replay", {"queue": "orders"}, 45),
    ]
    assert (found[2]["who"], found[2]["why"]) == ("alice", "it is up")
    assert "@" in found[1]["who"]
    assert terminal.run("audit", "--limit", "1", "--before", str(found[0]["id"]), "--json").json == [found[1]]
    assert [each["affected"] for each in terminal.run("audit", "--action", "replay", "--json").json] == [45]
    assert ["replay", "queue", "orders"] == lines(terminal.run("audit").out)[3][4:7]


@pytest.mark.usefixtures("control_table")
def test_what_cannot_be_written_down_is_not_done(terminal: Terminal, bury: Put, sql: Run) -> None:
    bury(count=3)
    sql("ALTER TABLE outbox_control ADD CHECK (action = 'pause')")
    said = terminal.run("dead", "discard", "--all", "--yes")
    assert said.code == 3
    assert sql("SELECT count(*) FROM outbox_dlq") == [(3,)]


def test_texts_of_others_move_no_terminal(terminal: Terminal, control_table: str, sql: Run) -> None:
    sql(
        f"INSERT INTO {control_table} (outbox, who, action, what, why) "
        "VALUES ('public.outbox', %s, 'pause', jsonb_build_object('queue', CAST(%s AS text)), %s)",
        "q\x1b[2J",
        "a\x1b[2J",
        "[bold]\x1b[2J",
    )
    for arguments in (["pauses"], ["audit"], ["status"], ["doctor"]):
        said = terminal.run(*arguments)
        assert "\x1b[2J" not in said.out
        assert said.out, arguments
    assert "[bold]" in terminal.run("pauses").out


@pytest.mark.parametrize("command", ["pause", "resume", "pauses", "audit"])
def test_each_command_has_help(terminal: Terminal, command: str) -> None:
    said: Any = terminal.run(command, "--help")
    assert said.code == 0
    assert "--control-table" in said.out
