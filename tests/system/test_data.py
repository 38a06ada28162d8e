"""``relay data`` on the files of a real relay: check, repair, export, import."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw
import pytest

from relay import BlockingClient, GapReason, codec
from relay.chat.accounts import events as account_events
from relay.chat.entries import packable
from relay.chat.partition import partition_of
from relay.chat.rooms import events
from relay.client.events import Gap, Message
from relay.client.refusals import MembersOnly
from relay.wire.envelopes import EntryMessage
from relay.wire.packing import pack_entry, unpack_entry
from tests.support.cluster import Relay, run_relay
from tests.support.programs import run_program

MESSAGES = 3000
ROOM = "lobby"


def used(data: Path) -> Path:
    """Fill a relay: a room with some megabytes, a small room, an account."""
    with Relay(data) as relay, BlockingClient(relay.address, name="alice") as alice:
        for number in range(MESSAGES):
            alice.post(ROOM, f"message {number} {'x' * 200}")
        alice.flush()
        alice.send("kitchen", "hello")
    return data


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The data of a relay that was used. Made anew each time: copied files count as not closed
    cleanly.
    """
    return used(tmp_path / "data")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As ``data``, for tests that do not change it."""
    return used(tmp_path_factory.mktemp("whole") / "data")


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data of an unused relay, for tests of refused imports: nothing is stored in it."""
    data = tmp_path_factory.mktemp("empty") / "data"
    with Relay(data):
        pass
    return data


def ran(*args: str | Path, code: int = 0, text: str = "") -> subprocess.CompletedProcess[str]:
    ended = run_relay("data", *args, text=text)
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended


def file_of(data: Path, room: str) -> Path:
    return data / "logs" / f"{partition_of(room):02}.sqlite"


def damage(path: Path, text: bytes) -> None:
    """Overwrite the page that holds a text, as a failing disk does."""
    whole = bytearray(path.read_bytes())
    page = whole.index(text) // 4096 * 4096
    whole[page : page + 4096] = b"\xa5" * 4096
    path.write_bytes(bytes(whole))


def test_what_is_good_is_said_and_left_alone(whole: Path) -> None:
    before = {path: path.read_bytes() for path in (whole / "logs").iterdir()}
    lines = ran("check", "--data", whole).stdout.splitlines()
    assert len(lines) == 16
    assert all(line[2:].startswith(" good: ") and "new epochs" not in line for line in lines)
    assert f"{MESSAGES + 1} entries" in lines[partition_of(ROOM)]
    assert ran("repair", "--data", whole).stdout == "nothing to repair\n"
    assert {path: path.read_bytes() for path in (whole / "logs").iterdir()} == before


def test_a_damaged_room_keeps_what_is_around_the_damage(data: Path) -> None:
    """What is lost is a gap for readers, as while a relay runs; numbers stay."""
    path = file_of(data, ROOM)
    damage(path, b"message 1500 ")
    refused = ran("check", "--data", data, code=1)
    assert f"{partition_of(ROOM):02} refused: {path} is damaged" in refused.stdout
    told = ran("repair", "--data", data).stdout
    assert f"{partition_of(ROOM):02} repaired" in told
    (aside,) = (data / "damaged").iterdir()
    assert str(aside) in told
    assert not (aside / "rescued.jsonl").exists(), "everything readable has its place"
    checked = ran("check", "--data", data, code=1).stdout
    assert "new epochs" in checked
    lines = re.search(rf"{ROOM}: (\d+) entries kept, (\d+) lost", told)
    assert lines is not None
    kept, lost = int(lines[1]), int(lines[2])
    assert kept + lost == MESSAGES + 1
    assert f"and {lost - 1} more cannot be read" in checked
    assert 0 < lost < 40, "what was on the page"
    with Relay(data) as relay, BlockingClient(relay.address, name="alice") as alice:
        alice.join(ROOM, since=0)
        found: list[int] = []
        gaps: list[Gap] = []
        for event in alice.events():
            if isinstance(event, Gap):
                gaps.append(event)
            if isinstance(event, Message):
                found.append(int(event.text.split()[1]))
                if found[-1] == MESSAGES - 1:
                    break
        (gap,) = gaps
        assert gap.reason == GapReason.DAMAGED
        assert gap.end.seq - gap.start.seq == lost
        # The room began with an entry of its own: number n is message n - 2.
        expected = set(range(MESSAGES)) - set(range(gap.start.seq - 1, gap.end.seq - 1))
        assert found == sorted(expected)
        assert alice.send(ROOM, "after").seq == MESSAGES + 2


def test_a_file_of_which_nothing_can_be_read_begins_anew(data: Path) -> None:
    path = file_of(data, ROOM)
    path.write_bytes(b"\xa5" * 8192)
    ran("check", "--data", data, code=1)
    ran("repair", "--data", data)
    with Relay(data) as relay, BlockingClient(relay.address, name="alice") as alice:
        assert alice.send(ROOM, "the first").seq == 2


def test_a_repaired_private_room_is_private(data: Path) -> None:
    """Its members follow from its entries, which the repair keeps."""
    with Relay(data) as relay, BlockingClient(relay.address, name="alice") as alice:
        alice.create_room("secret", "private")
        alice.change_room("secret", "topic", text="not for everybody")
        for number in range(2000):
            alice.post("secret", f"{number} {'x' * 200}")
        alice.flush()
    path = file_of(data, "secret")
    damage(path, b"1500 xxx")
    ran("repair", "--data", data)
    with Relay(data) as relay:
        with BlockingClient(relay.address, name="stranger") as stranger:
            with pytest.raises(MembersOnly):
                stranger.join("secret", last=10)
            with pytest.raises(MembersOnly):
                stranger.send("secret", "hello")
        with BlockingClient(relay.address, name="alice") as alice:
            assert alice.room_info("secret").topic == "not for everybody"
            alice.change_room("secret", "invite", "stranger")


def test_export_and_import(whole: Path, tmp_path: Path) -> None:
    exported = tmp_path / "all.jsonl"
    exported.write_text(ran("export", "--data", whole).stdout)
    lines = [json.loads(line) for line in exported.read_text().splitlines()]
    assert len(lines) == MESSAGES + 1
    assert {line["room"] for line in lines} == {ROOM, "kitchen"}
    only = ran("export", "--room", "kitchen", "--data", whole).stdout
    assert json.loads(only)["body"] == "hello"
    assert "there is no room" in ran("export", "--room", "attic", "--data", whole, code=1).stderr

    other = tmp_path / "other"
    with Relay(other) as relay, BlockingClient(relay.address, name="bob") as bob:
        bob.send("kitchen", "first")
        bob.send("@bob", "a note to nobody else")
        assert "in use" in ran("import", exported, "--data", other, code=1).stderr
        while_it_runs = ran("export", "--data", other).stdout
        assert json.loads(while_it_runs)["body"] == "first", "no direct message is exported"
        assert ran("export", "--room", "@bob", "--data", other, code=2).stdout == ""
    assert ran("import", exported, "--data", other).stdout == f"{MESSAGES + 1} messages stored\n"
    again = ran("import", "-", "--data", other, text=exported.read_text()).stdout
    assert again == f"0 messages stored; {MESSAGES + 1} were already stored\n"
    with Relay(other) as relay, BlockingClient(relay.address, name="bob") as bob:
        bob.join("kitchen", since=0)
        events = (event for event in bob.events() if isinstance(event, Gap | Message))
        first, second = next(events), next(events)
        assert isinstance(first, Message)
        assert isinstance(second, Message)
        assert [(m.sender, m.body) for m in (first, second)] == [
            ("bob", b"first"),
            ("~alice", b"hello"),
        ]


IRSSI = """\
--- Log opened Tue Nov 26 09:00:00 2024
09:00 -!- ann [ann@host] has joined #lobby
09:01 <@ann> good morning
--- Day changed Wed Nov 27 2024
00:05  * Bob_ waves
"""
WEECHAT = """\
2024-11-26 09:00:00\t-->\tann (ann@host) has joined #lobby
2024-11-26 09:01:00\t@ann\tgood morning
2024-11-27 00:05:00\t *\tBob_ waves
"""


@pytest.mark.parametrize(("form", "text"), [("irssi", IRSSI), ("weechat", WEECHAT)])
def test_logs_of_others(tmp_path: Path, form: str, text: str) -> None:
    data, file = tmp_path / "data", tmp_path / "log"
    file.write_text(text)
    with Relay(data):
        pass
    assert ran("import", file, "--format", form, "--data", data, code=2).stderr
    ran("import", file, "--format", form, "--room", "old", "--data", data)
    lines = [json.loads(line) for line in ran("export", "--data", data).stdout.splitlines()]
    assert [(line["room"], line["sender"], line["body"]) for line in lines] == [
        ("old", "~ann", "good morning"),
        ("old", "~bob_", "* Bob_ waves"),
    ]
    assert [line["time"][14:16] for line in lines] == ["01", "05"]


def test_what_a_log_would_have_is_no_line_for_a_person(tmp_path: Path) -> None:
    """A restored directory begins new epochs, whatever is stored first."""
    data, file = tmp_path / "data", tmp_path / "lines"
    with Relay(data):
        pass
    for lock in (data / "logs").glob("*.lock"):
        lock.unlink()
    file.write_text(json.dumps(GOOD) + "\n")
    stored = ran("import", file, "--data", data)
    assert (stored.stdout, stored.stderr) == ("1 messages stored\n", "")
    added = run_relay("user", "add", "carol", "--data", data)
    assert added.stderr == "carol is reserved for whoever has this invitation:\n"


GOOD: Final = {"room": "lobby", "time": "2024-01-01T00:00:00Z", "sender": "a", "body": "x"}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nonsense\n", "line 1: not a message as JSON"),
        (
            '{"room": "Big Room", "time": "2024-01-01T00:00:00Z", "sender": "a", "body": ""}\n',
            "invalid room name",
        ),
        ('{"gap": 1}\n{"room": "lobby"}\n', "line 2: not a message"),
        ("[" * 100_000, "line 1: not a message as JSON"),
        (
            json.dumps(GOOD) + "\n" + json.dumps(GOOD | {"time": "9999-12-31T00:00:00Z"}),
            "line 2: a time in the future",
        ),
        ('"the way to go"\n', "line 1: not a message as JSON"),
        ('["gap"]\n', "line 1: not a message as JSON"),
        (json.dumps(GOOD | {"encoding": "hex"}), "line 1: not a message as JSON"),
        (
            json.dumps(GOOD | {"content_type": "\ud800"}),
            "line 1: not a message as JSON",
        ),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_stored(
    empty: Path, tmp_path: Path, text: str, why: str
) -> None:
    file = tmp_path / "lines"
    file.write_text(text)
    ended = ran("import", file, "--data", empty, code=2)
    assert why in ended.stderr
    assert str(file) in ended.stderr
    file.write_text(json.dumps(GOOD) + "\n" + text)
    ran("import", file, "--data", empty, code=2)
    assert ran("export", "--data", empty).stdout == ""


@pytest.mark.parametrize(
    ("opened", "line", "why"),
    [
        ("Thu Nov 26 09:00:00 2026", "25:00 <ann> hi", "line 2: expected a time, not '25:00 <a'"),
        ("Mon Jan 01 00:00:00 0001", "00:00 <ann> hi", "line 2: "),
    ],
)
def test_a_time_that_is_none(empty: Path, tmp_path: Path, opened: str, line: str, why: str) -> None:
    file = tmp_path / "log"
    file.write_text(f"--- Log opened {opened}\n{line}\n")
    ended = ran("import", file, "--format", "irssi", "--room", "old", "--data", empty, code=2)
    assert why in ended.stderr
    assert "internal error" not in ended.stderr


@pytest.mark.parametrize("form", ["irssi", "weechat"])
def test_a_log_of_something_else(empty: Path, tmp_path: Path, form: str) -> None:
    file = tmp_path / "log"
    file.write_text("Nov 26 09:00:00 host sshd: something else\n")
    ended = ran("import", file, "--format", form, "--room", "old", "--data", empty, code=2)
    assert re.match(f"relay: {re.escape(str(file))}: not an? {form} log: ", ended.stderr)


def test_a_row_that_is_no_entry_is_damage(data: Path) -> None:
    """The structure of the file is valid; the content is not."""
    path = file_of(data, ROOM)
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE entry SET packed=x'00' WHERE id=(SELECT max(id) FROM entry)")
    connection.close()
    assert "cannot be read" in ran("check", "--data", data, code=1).stdout
    # Nothing more can be had of it.
    again = ran("repair", "--data", data, code=1)
    assert again.stdout == "nothing to repair\n"
    assert f"{ROOM} is left as it is: entry {MESSAGES + 1} cannot be read" in again.stderr


def changed(data: Path, log: str, change: Callable[[EntryMessage], bytes]) -> None:
    """Change the body of the first entry of a log."""
    connection = apsw.Connection(str(file_of(data, log)))
    [(row, packed)] = connection.execute(
        "SELECT entry.id, packed FROM entry JOIN log ON log.id=entry.id >> 40 WHERE name=? "
        "ORDER BY entry.id LIMIT 1",
        (log,),
    ).fetchall()
    assert isinstance(packed, bytes)
    entry = unpack_entry(packed)
    other = pack_entry(packable(entry._replace(body=change(entry))))
    connection.execute("UPDATE entry SET packed=? WHERE id=?", (other, row))
    connection.close()


def test_what_does_not_follow_from_its_entries_is_named(whole: Path, tmp_path: Path) -> None:
    """Accounts (with every signature) and room permissions are recomputed; a start does not do
    that.
    """
    data = tmp_path / "data"
    shutil.copytree(whole, data)
    assert "damaged" not in ran("check", "--data", data).stdout

    def signature(entry: EntryMessage) -> bytes:
        event = account_events.unpack(entry.body)
        assert isinstance(event, account_events.Created)
        link = bytes((*event.link[:-1], event.link[-1] ^ 1))
        return account_events.pack(event._replace(link=link))

    def hidden(entry: EntryMessage) -> bytes:
        event = events.unpack(entry.body)
        assert isinstance(event, events.Created)
        return events.pack(event._replace(kind=events.Kind.PRIVATE))

    changed(data, "@alice", signature)
    changed(data, "kitchen", hidden)
    found = ran("check", "--data", data, code=1)
    assert "  @alice is damaged: entry 1: a link with a wrong signature\n" in found.stdout
    assert "  kitchen is damaged: its stored state contradicts its entries\n" in found.stdout
    assert "relay: 2 accounts, invitations or rooms are damaged" in found.stderr
    lines = map(json.loads, ran("check", "--json", "--data", data, code=1).stdout.splitlines())
    assert {log for line in lines for log in line.get("damaged", {})} == {"@alice", "kitchen"}
    left = ran("repair", "--data", data, code=1)
    assert "@alice is left as it is" in left.stderr
    changed(data, "@alice", lambda _: codec.pack([99]))
    found = ran("check", "--data", data, code=1)
    assert "@alice is damaged: entry 1: an event of a later version" in found.stdout


def test_a_backup_of_damaged_logs_is_made_and_names_them(data: Path, tmp_path: Path) -> None:
    """It is all there is; but it must not look like a good one, however it is looked at."""

    def signature(entry: EntryMessage) -> bytes:
        event = account_events.unpack(entry.body)
        assert isinstance(event, account_events.Created)
        link = bytes((*event.link[:-1], event.link[-1] ^ 1))
        return account_events.pack(event._replace(link=link))

    changed(data, "@alice", signature)
    connection = apsw.Connection(str(file_of(data, "kitchen")))
    connection.execute(
        "UPDATE entry SET packed=x'00' WHERE id=(SELECT (id << 40) + 2 FROM log "
        "WHERE name='kitchen')"
    )
    connection.close()
    to, restored = tmp_path / "backup", tmp_path / "restored"
    with Relay(data):  # a start serves what it has
        ended = [run_relay("ctl", "backup", tmp_path / "online", "--data", data)]
    ended += [
        run_relay("backup", *args)
        for args in (
            ("create", to, "--data", data), ("verify", to), ("restore", to, "--data", restored)
        )
    ]  # fmt: skip
    for one in ended:
        assert one.returncode == 1, one.stderr
        assert "relay: @alice is damaged: entry 1: a link with a wrong signature\n" in one.stderr
        assert "relay: kitchen is damaged: entry 2 cannot be read\n" in one.stderr
    document = json.loads(run_relay("backup", "verify", to, "--json").stdout)
    assert set(document["damaged"]) == {"@alice", "kitchen"}
    assert {entry.name for entry in restored.iterdir()} >= {"logs", "server.key"}


def test_an_altered_message_is_known_to_be_missing(data: Path) -> None:
    """A byte of it changed on the disk: only a check of the whole file detects it."""
    path = file_of(data, ROOM)
    with Relay(data) as relay, BlockingClient(relay.address, name="alice") as alice:
        whole = path.read_bytes()
        with path.open("r+b", buffering=0) as file:
            file.seek(whole.rindex(b"text/plain", 0, whole.index(b"message 1500 ")))
            file.write(b"\xff")
        alice.join(ROOM, since=1490)
        gap = next(event for event in alice.events() if isinstance(event, Gap))
        assert (gap.reason, gap.end.seq) == (GapReason.DAMAGED, gap.start.seq + 1)
        after = next(event for event in alice.events() if isinstance(event, Message))
        assert (after.prev, after.text.split()[1]) == (gap.end.seq, "1501")
        page = alice.history(ROOM, before=gap.end.seq + 2, count=3)
        assert [entry.seq - gap.end.seq for entry in page.entries] == [-1, 1]
        shown = run_relay("history", relay.address, ROOM, "--name", "alice", "-n", "1600")
        assert "-!- messages are missing in a place: what the server" in shown.stderr
        exported = ran("export", "--data", data, "--room", ROOM, code=1)
        assert len(exported.stdout.splitlines()) == MESSAGES - 1
        assert "1 messages are damaged, and were left out" in exported.stderr
    assert "cannot be read" in ran("check", "--data", data, code=1).stdout


COMMANDS: Final = (
    ("data", "check"), ("data", "repair"), ("data", "export"), ("data", "import", "LINES"),
    ("backup", "create", "NEW"), ("user", "list"), ("invite", "--list"),
)  # fmt: skip
WITH_FEW_FILES: Final = """
import resource, sys
from relay.cli.main import main
limits = tuple(map(int, sys.argv.pop(1).split(",")))
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_without_descriptors_nothing_is_taken_for_damaged(
    whole: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """SQLite only reports a file that cannot be opened: a repair would replace it."""
    (tmp_path / "LINES").write_text("")
    given = [str(tmp_path / one) if one.isupper() else one for one in command]
    before = {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()}
    for few in ("8,8", "20,20", "50,50", "70,70"):
        ended = run_program(WITH_FEW_FILES, few, *given, "--data", whole)
        assert (ended.returncode, ended.stdout) == (1, ""), ended
        assert re.fullmatch(
            r"relay: this command opens up to \d+ files more than it has open now, and its limit is"
            rf" {few.split(',')[0]}: raise the limit on open files \(ulimit -Hn, LimitNOFILE\)\n",
            ended.stderr,
        ), ended.stderr
    assert {path: path.read_bytes() for path in whole.rglob("*") if path.is_file()} == before


def test_a_low_soft_limit_on_descriptors_is_raised(whole: Path) -> None:
    ended = run_program(WITH_FEW_FILES, "20,500", "data", "check", "--data", whole)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert len(re.findall("^[0-9]+ good: ", ended.stdout, re.MULTILINE)) == 16
