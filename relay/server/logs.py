"""The log on stderr: one line per event, JSON for programs, text for a terminal.

An event is ``log.info("worker_ready", extra={"worker": 0})``: the message is the event's stable
name, everything else is a field. Values are escaped and truncated, so a line stays one line
whatever a peer put into it.

Logging neither blocks its caller nor raises. A line that cannot be written at once (the pipe is
full, its reader is gone, the disk is full) is lost and counted. Once a line can be written again,
the supervisor logs the number of all processes' lost lines as ``log_lines_lost``.

Of an event that is repeated too often, only some lines are written; ``log_lines_left_out`` then has
the number of the others.
"""

from __future__ import annotations

import io
import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from pythonjsonlogger.json import JsonFormatter

from relay.server.system.output import Output
from relay.settings import Log

VALUE_CHARS_MAX: Final = 256
"""For one string: it may come from a peer."""
LINE_VALUE_CHARS_MAX: Final = 4096
"""For a list or table: its contents do not come from a peer."""
REPEATS_MAX: Final = 20
"""Lines of one event within a window: a thousand broken clients must not fill the disk."""
REPEAT_WINDOW_S: Final = 10.0
EVENTS_MAX: Final = 1000
"""Number of names to count; there are far fewer, since the names of events are constants."""
ALWAYS_WRITTEN: Final = frozenset(
    {"account_changed", "room_changed", "child_exited", "child_killed", "boot_failed"}
)
"""Each line is about another subject, and is the only record of it on this machine that an operator
reads. Others bound their number: an account or room is changed by a commit, which costs its user
budget and more disk space than the line; and processes that die are restarted with a delay."""
log = logging.getLogger("relay.log")
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(JsonFormatter):
    """One JSON object per line: ts, level, event, then the fields."""

    def __init__(self) -> None:
        super().__init__(json_ensure_ascii=True)

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        """Truncate long values; a traceback keeps its length."""
        return {key: value if key == "exc_info" else _cut(value) for key, value in log_data.items()}

    def add_fields(
        self,
        log_data: dict[str, object],
        record: logging.LogRecord,
        message_dict: dict[str, object],
    ) -> None:
        """Put the fields that every line has first."""
        log_data["ts"] = _timestamp(record)
        log_data["level"] = record.levelname.lower()
        log_data["event"] = record.getMessage()
        log_data["from"] = record.name
        log_data.update(_fields(record))
        if message_dict.get("exc_info"):
            log_data["exc_info"] = message_dict["exc_info"]


class TextLines(logging.Formatter):
    """For people: the time, the event, and key=value."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line (several, with a traceback)."""
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        event = _cut(record.getMessage().encode("unicode_escape").decode())
        parts = [f"{clock} {level}{event}"]
        for key, value in _fields(record).items():
            plain = isinstance(value, str) and value.isascii() and value.isprintable()
            quoted = not plain or " " in str(value)
            text = json.dumps(_cut(value), default=str) if quoted else str(_cut(value))
            parts.append(f"{key}={text[:LINE_VALUE_CHARS_MAX]}")
        line = " ".join(parts)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


class RepeatFilter(logging.Filter):
    """Drops repeats of one event at one level, and counts them."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[int, object], tuple[float, int]] = {}
        """By level and event: when its window began, and how many lines came since then."""
        self._left_out: dict[tuple[int, object], tuple[float, int]] = {}
        """How many of them were dropped, and when that is due to be reported: at the end of the
        first such window, however many follow without a pause. Only those with any."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is to be written. Errors always are."""
        if record.levelno >= logging.ERROR or record.msg in ALWAYS_WRITTEN:
            return True
        now = time.monotonic()
        key = record.levelno, record.msg
        began, count = self._seen.get(key, (now, 0))
        if now - began >= REPEAT_WINDOW_S:
            began, count = now, 0
        if len(self._seen) >= EVENTS_MAX:
            self._seen.clear()
        self._seen[key] = (began, count + 1)
        if count < REPEATS_MAX:
            return True
        due_s, left_out = self._left_out.get(key, (began + REPEAT_WINDOW_S, 0))
        self._left_out[key] = due_s, left_out + 1
        return False

    def due_s(self) -> float:
        """Return when the first report of dropped lines is due; infinity: there are none."""
        return min((due_s for due_s, _ in tuple(self._left_out.values())), default=math.inf)

    def take(self, now: float) -> list[tuple[int, object, int]]:
        """Return (level, event, number of dropped lines) for the reports that are due."""
        if not self._left_out:
            return []
        # Of a copy: a thread may log meanwhile.
        due = [key for key, (due_s, _) in tuple(self._left_out.items()) if due_s <= now]
        return [(*key, self._left_out.pop(key)[1]) for key in due]

    def reset(self) -> None:
        """Forget all."""
        self._seen.clear()
        self._left_out.clear()


class OutputHandler(logging.Handler):
    """Writes lines to a descriptor without waiting, and counts lost ones."""

    def __init__(self, output: Output) -> None:
        super().__init__()
        self.output = output
        self.repeats = RepeatFilter()
        self.addFilter(self.repeats)
        self.lost = 0
        """In this process."""
        self.on_lost: Callable[[], None] | None = None
        """Called for each lost line; may be None."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Filter and write; an error in either loses the line."""
        try:
            return bool(super().handle(record))
        except Exception:  # noqa: BLE001  # whatever it is, nobody fails for a line
            self._count_lost()
            return False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        if not self.write(record):
            self._count_lost()

    def write(self, record: logging.LogRecord) -> bool:
        """Write a line; return whether it was written."""
        line = self.format(record) + "\n"
        return self.output.write(line.encode(errors="backslashreplace"))

    def _count_lost(self) -> None:
        self.lost += 1
        if self.on_lost is not None:
            self.on_lost()


class StderrLog(io.TextIOBase):
    """Replaces ``sys.stderr`` in the server: what libraries print there becomes log lines.

    The interpreter reports errors in threads and destructors there, too. Such a write may block,
    and a failed one changes the exit code.
    """

    def __init__(self) -> None:
        self._line = ""

    def write(self, text: str) -> int:
        """Log each complete line."""
        *lines, rest = (self._line + text).split("\n")
        if len(rest) > LINE_VALUE_CHARS_MAX:
            lines, rest = [*lines, rest], ""
        self._line = rest
        for line in lines:
            if line:
                log.error("printed_to_stderr", extra={"text": line})
        return len(text)

    def writable(self) -> bool:
        """Return True."""
        return True

    def fileno(self) -> int:
        """Return the descriptor of the real stderr."""
        return 2


def set_up(settings: Log, fd: int = 2) -> OutputHandler:
    """Send the log to stderr in the format of the settings. Forked children inherit it."""
    as_text = settings.format == "text" or (settings.format == "auto" and os.isatty(fd))
    handler = OutputHandler(Output(fd))
    handler.setFormatter(TextLines() if as_text else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(settings)
    logging.raiseExceptions = False
    return handler


def set_level(settings: Log) -> None:
    """Use the log level of these settings from now on."""
    logging.getLogger().setLevel(settings.level.upper())


@contextmanager
def stderr_to_log() -> Iterator[None]:
    """Within the context ``sys.stderr`` is a ``StderrLog``."""
    before = sys.stderr
    sys.stderr = StderrLog()
    try:
        yield
    finally:
        sys.stderr = before


def reset_in_child(on_lost: Callable[[], None]) -> None:
    """After a fork: count lost lines and repeats from zero; call a function for each lost line."""
    for handler in _handlers():
        handler.repeats.reset()
        handler.output.reset_in_child()
        handler.lost = 0
        handler.on_lost = on_lost


def lost() -> int:
    """Return how many lines this process has lost."""
    return sum(handler.lost for handler in _handlers())


def left_out_due_s() -> float:
    """Return when ``report_left_out`` will have something to report; infinity: nothing yet."""
    return min((handler.repeats.due_s() for handler in _handlers()), default=math.inf)


def report_left_out(now: float) -> None:
    """Log how many repeats were dropped, for each event of which a window has ended.

    Every process calls it from time to time: otherwise nobody would know of those at the end of a
    burst. ``now``: on the monotonic clock; infinity reports all, at the end of a process.
    """
    for handler in _handlers():
        for level, event, count in handler.repeats.take(now):
            log.log(level, "log_lines_left_out", extra={"of": event, "count": count})


def report_lost(count: int) -> bool:
    """Try to log that lines were lost, whatever the level; return whether it was written."""
    record = log.makeRecord(
        log.name, logging.WARNING, "", 0, "log_lines_lost", (), None, extra={"count": count}
    )
    return all(handler.write(record) for handler in _handlers())


def _handlers() -> list[OutputHandler]:
    return [one for one in logging.getLogger().handlers if isinstance(one, OutputHandler)]


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _cut(value: object) -> object:
    if isinstance(value, str) and len(value) > VALUE_CHARS_MAX:
        return value[: VALUE_CHARS_MAX - 1] + "…"
    return value


def _timestamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"
