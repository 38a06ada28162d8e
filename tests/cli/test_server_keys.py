"""Trust on first use: asked at a terminal, refused in a script, never changed silently."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import COMMAND_S, DEADLINE_S, Relay, relay_command
from tests.support.terminals import Terminal

OTHER = "a" * 52


def place(relay: Relay) -> str:
    """The address without its fingerprint."""
    return f"relay://127.0.0.1:{relay.port}"


def fingerprint(relay: Relay) -> str:
    """The fingerprint of the relay's key."""
    return relay.address.removeprefix("relay://").split("@")[0]


def script(
    relay: Relay, known: Path, *args: str, text: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run ``relay send`` without any terminal, with the address without a fingerprint."""
    return subprocess.run(
        relay_command("send", place(relay), "keys", "x", "--known-servers", str(known), *args),
        input=text,
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
        start_new_session=True,
    )


def line(relay: Relay, key: str) -> str:
    """The line of a pin."""
    return f"[127.0.0.1]:{relay.port} relay-key-v1 {key}\n"


def test_a_script_is_told_what_to_do(relay: Relay, known: Path) -> None:
    """Exit code 2, the fingerprint, and what to do; a ``yes`` in a pipe is ignored."""
    done = script(relay, known, text="yes\nyes\n")
    assert done.returncode == 2
    for part in (fingerprint(relay), relay.address, "--fingerprint", "--accept-new"):
        assert part in done.stderr
    assert not known.exists()


def test_a_script_may_accept_what_is_new(relay: Relay, known: Path) -> None:
    """With --accept-new; from then on the pin is enough."""
    first = script(relay, known, "--accept-new")
    assert first.returncode == 0, first.stderr
    assert fingerprint(relay) in first.stderr
    assert known.read_text() == line(relay, fingerprint(relay))
    assert known.stat().st_mode & 0o777 == 0o600
    second = script(relay, known)
    assert (second.returncode, second.stderr) == (0, "")


def test_a_script_may_name_the_fingerprint(relay: Relay, known: Path) -> None:
    """A wrong one, which is not stored, two that differ, and the right one, which is stored."""
    wrong = script(relay, known, "--fingerprint", OTHER)
    assert not known.exists()
    assert wrong.returncode == 3
    assert fingerprint(relay) in wrong.stderr
    assert OTHER in wrong.stderr
    both = subprocess.run(
        relay_command("send", relay.address, "keys", "x", "--fingerprint", OTHER),
        capture_output=True,
        text=True,
        timeout=COMMAND_S,
        check=False,
    )
    assert both.returncode == 2
    assert "differ" in both.stderr
    assert script(relay, known, "--fingerprint", fingerprint(relay)).returncode == 0
    assert script(relay, known).returncode == 0


def test_a_script_that_was_started_from_a_terminal_asks_nobody(
    relay: Relay, known: Path, tmp_path: Path
) -> None:
    """The user of the terminal sees neither its input nor its output, and would answer blindly."""
    command = shlex.join(
        relay_command("send", place(relay), "keys", "x", "--known-servers", str(known))
    )
    said = tmp_path / "said"
    with Terminal(
        program=["sh", "-c", f"{command} </dev/null 2>{said}; echo status $?"]
    ) as terminal:
        terminal.shows("status 2")
    assert "[no]" not in terminal.text
    assert "there is no terminal to ask at" in said.read_text()
    assert not known.exists()


@pytest.mark.parametrize("arguments", [[], ["--accept-new"]])
def test_a_changed_key_is_refused(relay: Relay, known: Path, arguments: list[str]) -> None:
    """Exit code 3, both fingerprints, file and line; the file is not changed.

    The line is the effective one: of this type of key, however its port is written.
    """
    later_type = line(relay, OTHER).replace("relay-key-v1", "relay-key-v2")
    pinned = line(relay, OTHER).replace("]:", "]:0")
    content = f"# mine\n[example.org]:7475 relay-key-v1 {OTHER}\n{later_type}{pinned}"
    known.write_text(content)
    done = script(relay, known, *arguments, text="yes\n")
    assert done.returncode == 3
    assert f"expected: {OTHER}  ({known}, line 4)" in done.stderr
    assert f"offered:  {fingerprint(relay)}" in done.stderr
    assert "Traceback" not in done.stderr
    assert known.read_text() == content


@contextlib.contextmanager
def listening(relay: Relay) -> Iterator[tuple[int, list[bytes]]]:
    """Forward the server's bytes, and keep the client's: yields (port, what the client sent)."""
    sent: list[bytes] = []

    def serve(listener: socket.socket) -> None:
        client, _ = listener.accept()
        with (
            client,
            socket.create_connection(("127.0.0.1", relay.port)) as server,
            contextlib.suppress(ConnectionError),  # the client has seen enough
        ):
            client.sendall(server.recv(65_536))
            while data := client.recv(65_536):
                sent.append(data)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,), daemon=True)
        thread.start()
        yield listener.getsockname()[1], sent
        thread.join(DEADLINE_S)
        assert not thread.is_alive()


@pytest.mark.parametrize("pinned", [False, True])
def test_nothing_is_sent_to_a_server_that_is_not_trusted(
    relay: Relay, known: Path, pinned: bool
) -> None:
    """Not one byte after ServerHello, whether its key is unknown or differs from the pin."""
    with listening(relay) as (port, sent):
        if pinned:
            known.write_text(f"[127.0.0.1]:{port} relay-key-v1 {OTHER}\n")
        done = subprocess.run(
            relay_command("send", f"127.0.0.1:{port}", "keys", "x", "--known-servers", str(known)),
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
            start_new_session=True,
        )
    assert done.returncode == (3 if pinned else 2)
    assert fingerprint(relay) in done.stderr
    assert sent == []


def test_a_changed_key_is_refused_at_a_terminal(relay: Relay, known: Path) -> None:
    """Without a question."""
    known.write_text(line(relay, OTHER))
    arguments = ["--known-servers", str(known), "--name", "anna"]
    with Terminal("chat", place(relay), *arguments) as terminal:
        assert terminal.ends() == 3
    assert f"({known}, line 1)" in terminal.text.replace("\r\n", "")
    assert "(yes/no" not in terminal.text
    assert known.read_text() == line(relay, OTHER)


@pytest.mark.parametrize("answer", ["", "no", "N", "\x04", OTHER, f"relay://{OTHER}@h:1"])
def test_a_person_refuses(relay: Relay, known: Path, answer: str) -> None:
    """The default is no, and so is another key's fingerprint: status 2, nothing is stored."""
    with Terminal(
        "chat", place(relay), "--known-servers", str(known), "--name", "anna"
    ) as terminal:
        terminal.shows("[no] ")
        assert fingerprint(relay) in terminal.text
        terminal.press(answer if answer == "\x04" else f"{answer}\r")
        assert terminal.ends() == 2
    assert "was not accepted" in terminal.text
    assert ("someone may be intercepting" in terminal.text) is (OTHER in answer)
    assert not known.exists()


@pytest.mark.parametrize("answer", ["yes", "y", "Yes", "the fingerprint", "the address"])
def test_a_person_accepts(relay: Relay, known: Path, answer: str) -> None:
    """By yes, the fingerprint or the address; the chat begins, and does not ask again."""
    typed = {"the fingerprint": f" {fingerprint(relay)} ", "the address": relay.address}.get(
        answer, answer
    )
    arguments = ["keys", "--known-servers", str(known), "--name", "anna"]
    with Terminal("chat", place(relay), *arguments) as terminal:
        terminal.shows("[no] ")
        terminal.press(f"{typed}\r")
        terminal.shows("in keys as anna")
    assert known.read_text() == line(relay, fingerprint(relay))
    with Terminal("chat", place(relay), *arguments) as again:
        again.shows("in keys as anna")
        assert "(yes/no" not in again.text


@pytest.mark.parametrize("answer", ["YES!", "what?", "a" * 51, "127.0.0.1", "relay://"])
def test_what_is_no_answer_is_asked_again(relay: Relay, known: Path, answer: str) -> None:
    """As ssh does, with the possible answers."""
    with Terminal(
        "chat", place(relay), "keys", "--known-servers", str(known), "--name", "anna"
    ) as terminal:
        terminal.shows("[no] ")
        terminal.press(f"{answer}\r")
        terminal.shows("Please type 'yes', 'no' or the fingerprint: ")
        terminal.press("yes\r")
        terminal.shows("in keys as ")
    assert known.read_text() == line(relay, fingerprint(relay))


def test_control_c_at_the_question(relay: Relay, known: Path) -> None:
    """The command dies by the signal; nothing is stored."""
    with Terminal(
        "chat", place(relay), "--known-servers", str(known), "--name", "anna"
    ) as terminal:
        terminal.shows("[no] ")
        terminal.press("\x03")
        assert terminal.ends() == -signal.SIGINT
    assert "Traceback" not in terminal.text
    assert not known.exists()


def test_the_question_goes_to_the_terminal_not_to_the_pipe(relay: Relay, known: Path) -> None:
    """What is piped into ``relay send`` is its input, not an answer."""
    reading, writing = os.pipe()
    os.write(writing, b"yes\n")
    os.close(writing)
    arguments = ["keys", "--known-servers", str(known), "--name", "anna"]
    with Terminal("send", place(relay), *arguments, stdin=reading) as terminal:
        os.close(reading)
        terminal.shows("[no] ")
        terminal.press("no\r")
        assert terminal.ends() == 2
    assert not known.exists()


def test_a_damaged_file_is_a_clear_error(relay: Relay, known: Path) -> None:
    """With its line."""
    known.write_text(f"[127.0.0.1]:{relay.port} relay-key-v1 abc\n")
    done = script(relay, known)
    assert done.returncode == 2
    assert f"{known}, line 1" in done.stderr
    assert done.stderr.count("\n") == 1


def test_the_null_device_keeps_no_pin(relay: Relay) -> None:
    """As with ssh: each command accepts the server anew, and the device stays one."""
    for _ in range(2):
        done = script(relay, Path(os.devnull), "--accept-new")
        assert done.returncode == 0, done.stderr
        assert "trusting the new server" in done.stderr
    assert Path(os.devnull).is_char_device()
