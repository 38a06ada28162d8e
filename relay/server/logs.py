"""The log on stderr: one line per event, JSON for programs, text for a terminal.

An event is ``log.info("worker_ready", extra={"worker": 0})``: the message is the event's stable
name, everything else is a field. Values are escaped and cut, so a line stays a line whatever a
peer put into it.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Final

from pythonjsonlogger.json import JsonFormatter

from relay.settings import Log

VALUE_CHARS_MAX: Final = 256
"""Of one string: it may come from a peer."""
LINE_VALUE_CHARS_MAX: Final = 4096
"""Of a list or table, which is our own."""
REPEATS_MAX: Final = 20
"""Lines of one event within a window; a thousand broken clients must not fill the disk."""
REPEAT_WINDOW_S: Final = 10.0
EVENTS_MAX: Final = 1000
"""Names that are counted; there are far fewer, for an event's name is a constant."""
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(JsonFormatter):
    """One JSON object a line: ts, level, event, then the fields."""

    def __init__(self) -> None:
        super().__init__(json_ensure_ascii=True)

    def process_log_record(self, log_data: dict[str, object]) -> dict[str, object]:
        """Cut long values; a traceback keeps its length."""
        return {key: value if key == "exc_info" else _cut(value) for key, value in log_data.items()}

    def add_fields(
        self,
        log_data: dict[str, object],
        record: logging.LogRecord,
        message_dict: dict[str, object],
    ) -> None:
        """Put the fields that every line has in front."""
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
    """Drops repeats of one event; the first line of the next window says how many."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[object, tuple[float, int]] = {}
        """By event: when its window began, and how many came since."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the line is to be written. Errors always are."""
        if record.levelno >= logging.ERROR:
            return True
        now = time.monotonic()
        key = record.msg
        began, count = self._seen.get(key, (now, 0))
        if now - began >= REPEAT_WINDOW_S:
            if count > REPEATS_MAX:
                record.suppressed = count - REPEATS_MAX
            began, count = now, 0
        if len(self._seen) >= EVENTS_MAX:
            self._seen.clear()
        self._seen[key] = (began, count + 1)
        return count < REPEATS_MAX


def set_up(settings: Log) -> None:
    """Send the log to stderr as the settings say. Children of a fork inherit it."""
    as_text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextLines() if as_text else JsonLines())
    handler.addFilter(RepeatFilter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.level.upper())
    # A closed stderr must not become a second error for each line.
    logging.raiseExceptions = False


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in _STANDARD}


def _cut(value: object) -> object:
    if isinstance(value, str) and len(value) > VALUE_CHARS_MAX:
        return value[: VALUE_CHARS_MAX - 1] + "…"
    return value


def _timestamp(record: logging.LogRecord) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
    return f"{whole}.{int(record.msecs):03d}Z"
