"""``relay history`` and the chat's /search, as users and scripts run them."""

from __future__ import annotations

import contextlib
import json
import os
import re

import apsw

from relay import BlockingClient, LogEntry
from relay.chat.partition import partition_of
from relay.store.file.directory import DataDirectory
from tests.support.cluster import Relay, run_relay, wait_until

"""Each command is a process of its own."""


def history(relay: Relay, *args: str | os.PathLike[str], status: int = 0, name: str) -> list[str]:
    found = run_relay("history", relay.address, *args, "--name", name)
    assert found.returncode == status, found.stderr
    assert "Traceback" not in found.stderr
    return found.stdout.splitlines()


def said(relay: Relay, room: str, name: str, *texts: str) -> None:
    found = run_relay("send", relay.address, room, "--name", name, text="\n".join(texts))
    assert found.returncode == 0, found.stderr


def texts(lines: list[str]) -> list[str]:
    return [line.split("| ", 1)[1] for line in lines]


def until_found(relay: Relay, room: str, words: str, name: str) -> None:
    wait_until(
        lambda: (
            run_relay("history", relay.address, room, "--search", words, "--name", name).returncode
            == 0
        ),
        "the index",
    )


def test_the_newest_messages_oldest_first(relay: Relay, room: str) -> None:
    ann = f"ann-{room}"
    said(relay, room, ann, *[f"number {n}" for n in range(30)])
    assert texts(history(relay, room, name=ann)) == [f"number {n}" for n in range(10, 30)]
    rows = [json.loads(line) for line in history(relay, room, "-n", "3", "--json", name=ann)]
    assert [row["body"] for row in rows] == ["number 27", "number 28", "number 29"]
    before = str(rows[0]["seq"])
    older = history(relay, room, "-n", "2", "--before", before, name=ann)
    assert texts(older) == ["number 25", "number 26"]
    assert len(history(relay, room, "-n", "5000", name=ann)) == 30
    assert history(relay, "nothing-here", status=1, name=ann) == []
    with BlockingClient(relay.address, name=ann) as client:
        client.join(room)
        last = client.history(room, count=1).entries[-1]
        assert isinstance(last, LogEntry)
        for emoji in ("+1", "-1"):
            client.react(last, emoji)
    [line] = history(relay, room, "-n", "1", "--numbers", name=ann)
    assert line.endswith(f" #{last.seq} {ann}| number 29"), "and reactions are not counted"


def test_searching(relay: Relay, room: str) -> None:
    """By words, as lines and as JSON; no match is exit code 1."""
    ann = f"ann-{room}"
    said(relay, room, ann, "Tea at four", "coffee", "more tea", "four cups")
    until_found(relay, room, "cups", ann)
    assert texts(history(relay, room, "--search", "tea", name=ann)) == ["Tea at four", "more tea"]
    assert texts(history(relay, room, "--search", '"at four"', name=ann)) == ["Tea at four"]
    [row] = history(relay, room, "--search", "TEA", "-n", "1", "--json", name=ann)
    assert json.loads(row)["body"] == "more tea"
    assert history(relay, room, "--search", "milk", status=1, name=ann) == []
    for words, printed in (
        ("", "1 to 256 bytes"),
        ("x" * 257, "1 to 256 bytes"),
        ("tea \udcff", "not UTF-8 text"),
    ):
        found = run_relay("history", relay.address, room, "--search", words, "--name", ann)
        assert (found.returncode, found.stdout) == (2, "")
        assert printed in found.stderr
    found = run_relay("history", relay.address, room, "--search", "?!", "--name", ann)
    assert (found.returncode, found.stdout) == (1, "")
    assert "there is no word to search for" in found.stderr


def test_whoever_searches_is_told_what_was_not_looked_at(relay: Relay, room: str) -> None:
    """Otherwise an empty result of an index that is being rebuilt would be unexplained."""
    ann = f"ann-{room}"
    said(relay, room, ann, "tea")
    until_found(relay, room, "tea", ann)
    path = DataDirectory(relay.data).search_path(partition_of(room))
    with contextlib.closing(apsw.Connection(str(path))) as index:
        index.execute("BEGIN IMMEDIATE")  # its indexing waits
        said(relay, room, ann, "cake")
        behind = "the search index is behind: messages after number 2 were not searched"
        found = run_relay("history", relay.address, room, "--search", "cake", "--name", ann)
        assert (found.returncode, found.stdout) == (1, "")
        assert behind in found.stderr
        typed = "/search cake\n/quit\n"
        chat = run_relay("chat", relay.address, room, "--name", ann, "--last", "0", text=typed)
        assert behind in chat.stderr
    until_found(relay, room, "cake", ann)
    assert (
        "behind"
        not in run_relay("history", relay.address, room, "--search", "cake", "--name", ann).stderr
    )


def test_direct_messages(relay: Relay, room: str) -> None:
    ann, bob, cat = f"ann-{room}", f"bob-{room}", f"cat-{room}"
    for name in (bob, cat):
        assert run_relay("register", relay.address, "--name", name).returncode == 0
    said(relay, f"@{bob}", ann, "tea for bob", "and cake")
    said(relay, f"@{cat}", ann, "tea for cat")
    until_found(relay, "@me", "cat", ann)
    assert len(history(relay, "@me", name=ann)) == 3
    assert texts(history(relay, f"@{bob}", name=ann)) == ["tea for bob", "and cake"]
    assert texts(history(relay, f"@{cat}", "--search", "tea", name=ann)) == ["tea for cat"]
    assert history(relay, f"@{cat}", "--search", "bob", status=1, name=ann) == []
    assert len(history(relay, "@me", "--search", "tea", name=ann)) == 2


def test_searching_in_a_chat(relay: Relay, room: str) -> None:
    """The oldest match first; /search alone continues with older ones."""
    ann = f"ann-{room}"
    said(relay, room, ann, *[f"tea {n}" for n in range(25)], "coffee")
    until_found(relay, room, "coffee", ann)
    typed = "/search\n/search tea\n/search\n/search\n/search milk\n/search ...\n/quit\n"
    done = run_relay("chat", relay.address, room, "--name", ann, "--last", "0", text=typed)
    assert texts(done.stdout.splitlines()) == [f"tea {n}" for n in (*range(5, 25), *range(5))], (
        done.stdout
    )
    notices = [line.removeprefix("-!- ") for line in done.stderr.splitlines()]
    days = {line for line in notices if re.fullmatch(r"\d{4}-\d\d-\d\d", line)}
    assert days
    assert [line for line in notices if line not in days][1:] == [
        "/search takes the words to look for",
        "20 messages with: tea",
        "/search shows older ones",
        "5 messages with: tea",
        "end of what was found",
        "there are no older messages with: tea",
        "there are no messages with: milk",
        "refused: BAD_REQUEST: there is no word to search for",
    ]
