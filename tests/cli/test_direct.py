"""``relay send @NAME``, ``relay tail @me``, and direct messages in ``relay chat``."""

from __future__ import annotations

import itertools
import json
import subprocess

from tests.support.cluster import COMMAND_S, Relay, run_relay, start_client


def chat(relay: Relay, room: str, name: str, lines: str) -> subprocess.CompletedProcess[str]:
    """Send lines to a chat through a pipe."""
    return run_relay("chat", relay.address, room, "--name", name, "--last", "0", text=lines)


def tail(relay: Relay, name: str, count: int) -> list[dict[str, object]]:
    """Return the first messages of the user's own inbox."""
    process = start_client("tail", relay.address, "@me", "--name", name, "--json", "--since", "0")
    assert process.stdout is not None
    assert process.stderr is not None
    with process.stdout, process.stderr:
        found = [json.loads(line) for line in itertools.islice(process.stdout, count)]
        process.terminate()
        process.wait(COMMAND_S)
    return found


def test_send_and_tail(relay: Relay, room: str) -> None:
    """A script sends to a user, who reads it with another script."""
    ann, bob = f"ann-{room}", f"bob-{room}"
    assert run_relay("send", relay.address, f"@{bob}", "x", "--name", ann).returncode == 1
    assert run_relay("send", relay.address, room, "x", "--name", bob).returncode == 0
    for text in ("one", "two"):
        done = run_relay("send", relay.address, f"@{bob}", text, "--name", ann)
        assert (done.returncode, done.stderr) == (0, "")
    rows = tail(relay, bob, 2)
    assert [(row["sender"], row["to"], row["body"]) for row in rows] == [
        (ann, bob, "one"),
        (ann, bob, "two"),
    ]
    refused = run_relay("tail", relay.address, f"@{ann}", "--name", bob)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "only one's own inbox can be read: @me" in refused.stderr


def test_in_a_chat(relay: Relay, room: str) -> None:
    """/msg, /query, edits and erasing; a chat started later shows the missed messages."""
    ann, bob = f"ann-{room}", f"bob-{room}"
    assert chat(relay, room, bob, "hello\n").returncode == 0
    done = chat(
        relay,
        room,
        ann,
        f"/msg {bob} psst\n/query {bob}\nare you there?\n/query\nto all\n/msg\n/block\n",
    )
    assert done.returncode == 1, "two commands were mistyped"
    assert "-!- /msg takes the name of a person; not sent" in done.stderr
    assert "-!- /block takes the name of a person; not sent" in done.stderr
    later = chat(relay, room, bob, f"/block {ann}\n")
    assert "-!- direct messages since you were last here: 2" in later.stderr
    assert [line[6:] for line in later.stdout.splitlines()] == [
        f"{ann} -> you| psst",
        f"{ann} -> you| are you there?",
    ]
    assert f"-!- direct messages from {ann} are blocked" in later.stderr
    refused = chat(relay, room, ann, f"/msg {bob} still there?\n")
    assert refused.returncode == 1
    assert "not stored (NOT_ACCEPTED" in refused.stderr


def test_a_chat_chooses_who_may_write_and_who_is_told(relay: Relay, room: str) -> None:
    """/writers and /seenby show the choice, and it applies to other users."""
    ann, bob = f"ann-{room}", f"bob-{room}"
    assert chat(relay, room, ann, "hello\n").returncode == 0
    shown = chat(relay, room, bob, "/writers\n/writers nobody\n/seenby nobody\n/writers\n")
    assert shown.returncode == 0
    assert [line for line in shown.stderr.splitlines() if "last seen" in line] == [
        "-!- direct messages from all, last seen visible to known",
        "-!- direct messages from nobody, last seen visible to known",
        "-!- direct messages from nobody, last seen visible to nobody",
        "-!- direct messages from nobody, last seen visible to nobody",
    ]
    other = chat(relay, room, ann, f"/msg {bob} hi\n/seen {bob}\n")
    assert "not stored (NOT_ACCEPTED" in other.stderr
    assert f"-!- you are not told when {bob} was last here" in other.stderr
