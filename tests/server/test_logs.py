"""The log has one line per event, whatever the event contains."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections import Counter
from pathlib import Path

import pytest

from relay.server import logs
from relay.settings import Log

NASTY = 'x\n{"event": "forged"}\r\x1b[2J\u2028\u202e%s{0.__class__}'


Capture = pytest.CaptureFixture[str]


def test_json(capfd: Capture) -> None:
    logs.set_up(Log(format="auto"))  # not a terminal
    logging.getLogger("relay.x").info("thing_happened", extra={"worker": 3, "peer": NASTY})
    logging.getLogger("relay.x").debug("not_seen")
    [line] = capfd.readouterr().err.splitlines()
    assert line.isascii()
    event = json.loads(line)
    assert list(event) == ["ts", "level", "event", "from", "worker", "peer"]
    assert (event["level"], event["event"], event["worker"]) == ("info", "thing_happened", 3)
    assert event["peer"] == NASTY
    assert event["ts"].endswith("Z")


def test_text(capfd: Capture) -> None:
    logs.set_up(Log(format="text", level="warning"))
    logging.getLogger("relay.x").warning("thing", extra={"peer": NASTY, "n": [1, 2], "ok": "yes"})
    logging.getLogger("relay.x").info("not_seen")
    [line] = capfd.readouterr().err.splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert line.endswith("ok=yes")
    assert "WARNING thing " in line
    assert "n=[1, 2]" in line or 'n="[1, 2]"' in line


@pytest.mark.parametrize("kind", ["json", "text"])
def test_long_values_are_cut(capfd: Capture, kind: str) -> None:
    logs.set_up(Log(format="json" if kind == "json" else "text"))
    logging.getLogger("relay.x").info("thing", extra={"peer": "a" * 100_000})
    assert len(capfd.readouterr().err) < 1000


def test_a_traceback_is_in_the_line(capfd: Capture) -> None:
    logs.set_up(Log(format="json"))
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("relay.x").exception("failed")
    [line] = capfd.readouterr().err.splitlines()
    assert "ValueError: boom" in json.loads(line)["exc_info"]


def test_repeats_are_dropped_and_counted(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """By event and level: the number follows though nothing else is logged."""
    now = 1000.0
    monkeypatch.setattr("relay.server.logs.time.monotonic", lambda: now)
    logs.set_up(Log(format="json"))
    log = logging.getLogger("relay.x")
    for _ in range(logs.REPEATS_MAX + 7):
        log.info("flood")
        log.error("trouble")
    log.warning("flood")
    log.info("other")
    assert logs.left_out_due_s() == now + logs.REPEAT_WINDOW_S
    logs.report_left_out(now)
    now += logs.REPEAT_WINDOW_S
    logs.report_left_out(now)
    logs.report_left_out(now)
    assert logs.left_out_due_s() == math.inf
    log.info("flood")
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    written = Counter((event["event"], event["level"]) for event in events)
    assert written == {
        ("flood", "info"): logs.REPEATS_MAX + 1,
        ("flood", "warning"): 1,
        ("trouble", "error"): logs.REPEATS_MAX + 7,
        ("other", "info"): 1,
        ("log_lines_left_out", "info"): 1,
    }
    [left_out] = [event for event in events if event["event"] == "log_lines_left_out"]
    assert (left_out["of"], left_out["count"]) == ("flood", 7)


def test_a_window_that_ends_in_a_new_burst(capfd: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every dropped line is counted once, however late the report."""
    now = 1000.0
    monkeypatch.setattr("relay.server.logs.time.monotonic", lambda: now)
    logs.set_up(Log(format="json"))
    log = logging.getLogger("relay.x")
    for _ in range(3):
        for _ in range(logs.REPEATS_MAX + 5):
            log.info("flood")
        now += logs.REPEAT_WINDOW_S
    logs.report_left_out(math.inf)
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [event["count"] for event in events if "count" in event] == [15]


def test_a_flood_without_a_pause_is_reported(
    capfd: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the first window that ends, not when the flood does."""
    now = 1000.0
    monkeypatch.setattr("relay.server.logs.time.monotonic", lambda: now)
    logs.set_up(Log(format="json"))
    log = logging.getLogger("relay.x")
    logged, windows = 0, 3
    while now < 1000.0 + windows * logs.REPEAT_WINDOW_S + 1:
        for _ in range(10):
            log.info("flood")
            logged += 1
        logs.report_left_out(now)
        now += 0.25
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    counts = [event["count"] for event in events if event["event"] == "log_lines_left_out"]
    assert len(counts) == windows
    logs.report_left_out(math.inf)
    events += [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    written = sum(event["event"] == "flood" for event in events)
    assert written + sum(event.get("count", 0) for event in events) == logged


@pytest.mark.parametrize("event", sorted(logs.ALWAYS_WRITTEN))
def test_no_account_room_or_process_is_left_out(capfd: Capture, event: str) -> None:
    logs.set_up(Log(format="json"))
    for number in range(logs.REPEATS_MAX + 7):
        logging.getLogger("relay.x").info(event, extra={"subject": number})
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert [line["subject"] for line in lines] == list(range(logs.REPEATS_MAX + 7))


def test_a_child_reports_its_own(capfd: Capture) -> None:
    logs.set_up(Log(format="json"))
    for _ in range(logs.REPEATS_MAX + 7):
        logging.getLogger("relay.x").info("flood")
    logs.reset_in_child(lambda: None)
    logs.report_left_out(math.inf)
    logging.getLogger("relay.x").info("flood")
    events = [json.loads(line)["event"] for line in capfd.readouterr().err.splitlines()]
    assert events == ["flood"] * (logs.REPEATS_MAX + 1)


def test_nothing_that_is_logged_can_fail(capfd: Capture) -> None:
    """Neither a value, nor arguments that do not match, nor an event that is not a string."""

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    for kind in ("json", "text"):
        handler = logs.set_up(Log(format="json" if kind == "json" else "text"))
        log = logging.getLogger("relay.x")
        log.info("thing", extra={"value": Broken()})
        log.info("%d", "no number")
        log.info({"a": "mapping"})
        log.info("surrogate", extra={"value": "\udc80"})
        log.info("fine")
        assert handler.lost >= 1
        assert logs.lost() == handler.lost
        assert "fine" in capfd.readouterr().err


def test_lost_lines_are_counted(tmp_path: Path) -> None:
    counted: list[int] = []
    read_fd, write_fd = os.pipe()
    handler = logs.set_up(Log(format="json"), write_fd)
    os.close(read_fd)
    logs.reset_in_child(lambda: counted.append(1))
    for _ in range(3):
        logging.getLogger("relay.x").error("unread")
    assert (handler.lost, len(counted)) == (3, 3)
    assert not logs.report_lost(3)
    assert handler.lost == 3, "the report itself is tried again"
    os.close(write_fd)
    handler.output.close()


def test_what_libraries_print_becomes_lines(capfd: Capture) -> None:
    """The interpreter prints an error of a thread or a destructor in several writes."""
    logs.set_up(Log(format="json"))
    with logs.stderr_to_log():
        print("half", end=" ", file=sys.stderr)
        print("and half\n\nnext", file=sys.stderr)
        sys.stderr.write("z" * 10_000)
    events = [json.loads(line) for line in capfd.readouterr().err.splitlines()]
    assert {event["event"] for event in events} == {"printed_to_stderr"}
    assert [event["text"] for event in events[:2]] == ["half and half", "next"]
    assert len(events) == 3
