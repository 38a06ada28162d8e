"""The log: one line per event, whatever is in it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from relay.server import logs
from relay.settings import Log

NASTY = 'x\n{"event": "forged"}\r\x1b[2J\u2028\u202e%s{0.__class__}'


@pytest.fixture(autouse=True)
def unchanged_logging() -> Iterator[None]:
    root = logging.getLogger()
    before = (root.handlers[:], root.level, logging.raiseExceptions)
    yield
    root.handlers[:], logging.raiseExceptions = before[0], before[2]
    root.setLevel(before[1])


Capture = pytest.CaptureFixture[str]


def test_json(capsys: Capture) -> None:
    logs.set_up(Log(format="auto"))  # not a terminal
    logging.getLogger("relay.x").info("thing_happened", extra={"worker": 3, "peer": NASTY})
    logging.getLogger("relay.x").debug("not_seen")
    [line] = capsys.readouterr().err.splitlines()
    assert line.isascii()
    event = json.loads(line)
    assert list(event) == ["ts", "level", "event", "from", "worker", "peer"]
    assert (event["level"], event["event"], event["worker"]) == ("info", "thing_happened", 3)
    assert event["peer"] == NASTY
    assert event["ts"].endswith("Z")


def test_text(capsys: Capture) -> None:
    logs.set_up(Log(format="text", level="warning"))
    logging.getLogger("relay.x").warning("thing", extra={"peer": NASTY, "n": [1, 2], "ok": "yes"})
    logging.getLogger("relay.x").info("not_seen")
    [line] = capsys.readouterr().err.splitlines()
    assert line.isascii()
    assert line.isprintable()
    assert line.endswith("ok=yes")
    assert "WARNING thing " in line
    assert "n=[1, 2]" in line or 'n="[1, 2]"' in line


@pytest.mark.parametrize("kind", ["json", "text"])
def test_long_values_are_cut(capsys: Capture, kind: str) -> None:
    logs.set_up(Log(format="json" if kind == "json" else "text"))
    logging.getLogger("relay.x").info("thing", extra={"peer": "a" * 100_000})
    assert len(capsys.readouterr().err) < 1000


def test_a_traceback_is_in_the_line(capsys: Capture) -> None:
    logs.set_up(Log(format="json"))
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("relay.x").exception("failed")
    [line] = capsys.readouterr().err.splitlines()
    assert "ValueError: boom" in json.loads(line)["exc_info"]


def test_repeats_are_dropped_and_counted(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("relay.server.logs.time.monotonic", lambda: now)
    logs.set_up(Log(format="json"))
    log = logging.getLogger("relay.x")
    for _ in range(logs.REPEATS_MAX + 7):
        log.info("flood")
        log.error("trouble")
    log.info("other")
    now += logs.REPEAT_WINDOW_S
    log.info("flood")
    log.info("flood")
    events = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    flood = [event for event in events if event["event"] == "flood"]
    assert len(flood) == logs.REPEATS_MAX + 2
    assert [event.get("suppressed") for event in flood[-2:]] == [7, None]
    assert sum(event["event"] == "trouble" for event in events) == logs.REPEATS_MAX + 7
    assert any(event["event"] == "other" for event in events)
