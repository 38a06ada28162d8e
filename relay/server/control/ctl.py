"""The requests of ``relay ctl``: answered from the scoreboards, the workers and the supervisor."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from relay import __version__
from relay.server.context import WORKER
from relay.server.control.board_view import BoardView, Seen
from relay.server.control.commit_pauses import CommitPauses
from relay.server.control.disk import DiskUse
from relay.server.control.health import Readiness
from relay.server.control.process_usage import age_s, usage_of
from relay.server.control.supervisor_line import SupervisorLine
from relay.server.control.worker_lines import Asked, WorkerLines
from relay.server.line_server import Handler, NotAnswered, Question, number_of, text_of
from relay.store.file.directory import DataDirectory
from relay.store.file.lock import read_refusal

LIMIT: Final = 20
LIMIT_MAX: Final = 1000


class Ctl:
    """The handlers, by request."""

    def __init__(
        self,
        view: BoardView,
        readiness: Readiness,
        disk: Callable[[], DiskUse],
        data: Path,
        runtime: Path,
        supervisor: SupervisorLine,
        supervisor_pid: int,
    ) -> None:
        self._view = view
        self._readiness = readiness
        self._disk = disk
        self._supervisor = supervisor
        self._supervisor_pid = supervisor_pid
        self._data = data
        self._worker_lines = WorkerLines(view, runtime)
        self._pauses = CommitPauses(view, runtime)
        self._before: dict[int, tuple[int, int, float]] = {}
        """Values at the last ``top``, by worker: accepted, delivered, CPU time."""
        self._before_s = 0.0

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """The handlers, by request."""
        return {
            "status": self._status,
            "top": self._top,
            "connections": self._connections,
            "rooms": self._rooms,
            "kick": self._kick,
            "closed": self._closed,
            "users": self._users,
            "invitations": self._invitations,
            "user": self._of_one_worker,
            "room": self._of_one_worker,
            "drain": self._drain,
            "log-level": self._log_level,
            "reload": self._reload,
            "reindex": self._reindex,
            "restart": self._restart,
            "workers": self._workers,
            "upgrade": self._upgrade,
            "upgrade-state": self._upgrade_state,
            "pause-commits": self._pauses.begin,
            "go-on": self._pauses.end,
        }

    # --- from the scoreboards -----------------------------------------------------------------
    async def _status(self, _: Question) -> dict[str, Any]:
        now_ns = time.monotonic_ns()
        ready = self._readiness.answer(now_ns)
        workers = [self._worker(seen, now_ns) for seen in self._view.of(WORKER)]
        return {
            "version": __version__,
            "pid": self._supervisor_pid,
            "data": str(self._data),
            "uptime_s": round(age_s(self._supervisor_pid) or 0.0, 1),
            "ready": ready.ok,
            "reasons": ready.document["reasons"],
            "warnings": ready.document["warnings"],
            "refused": self._refused(),
            "unavailable": await self._unavailable(),
            "connections": sum(worker["connections"] for worker in workers),
            "messages_accepted": self._view.total(WORKER, "messages_accepted"),
            "deliveries": self._view.total(WORKER, "deliveries"),
            "workers": workers,
            "disk": self._disk().document(),
        }

    def _refused(self) -> dict[str, str]:
        """Return the refused partitions, with the reasons."""
        if not any(seen.row.get("partitions_refused") for seen in self._view.of(WORKER)):
            return {}
        directory = DataDirectory(self._data)
        found = {
            str(index): read_refusal(directory.lock_path(index))
            for index in range(self._view.partitions)
        }
        return {index: reason for index, reason in found.items() if reason is not None}

    async def _unavailable(self) -> dict[str, str]:
        """Return the unavailable partitions with the reasons, from the workers that answer."""
        if not any(seen.row.get("partitions_unavailable") for seen in self._view.of(WORKER)):
            return {}
        found, _ = await self._worker_lines.ask_all({"do": "troubles"}, none_too=True)
        troubles = {index: reason for _, part in found for index, reason in part.items()}
        return {index: troubles[index] for index in sorted(troubles, key=int)}

    def _worker(self, seen: Seen, now_ns: int) -> dict[str, Any]:
        row = seen.row
        board = self._view.boards[WORKER]
        me = (seen.number, row.get("generation"))
        owned = [n for n in range(self._view.partitions) if tuple(board.owner(n)) == me]
        state = "running" if seen.lives(now_ns) else "hangs" if row.get("ready") else "down"
        return {
            "worker": seen.number,
            "pid": seen.pid,
            "state": "starting" if state == "down" and seen.pid else state,
            "connections": row.get("connections"),
            "logged_in": row.get("connections_logged_in"),
            "catching_up": row.get("readers_catching_up"),
            "partitions": owned,
            "accepted": row.get("messages_accepted"),
            "deliveries": row.get("deliveries"),
        }

    # --- from the workers ---------------------------------------------------------------------
    async def _listed(
        self, question: Question, key: Callable[[dict[str, Any]], Any]
    ) -> dict[str, Any]:
        """Return the lists of all workers as one, sorted by ``key``, descending."""
        most = number_of(question, "limit", LIMIT, LIMIT_MAX)
        found, missing = await self._worker_lines.ask_all(question)
        items = [{"worker": one.number, **item} for one, part in found for item in part["items"]]
        items.sort(key=key, reverse=True)
        return _listing(items, most, sum(part["total"] for _, part in found), missing)

    async def _connections(self, question: Question) -> dict[str, Any]:
        return await self._listed(question, lambda item: (item["owed_bytes"], item["age_s"]))

    async def _closed(self, question: Question) -> dict[str, Any]:
        return await self._listed(question, lambda item: item["time"])

    async def _users(self, question: Question) -> dict[str, Any]:
        return await self._of_homes(question, lambda item: str(item["name"]))

    async def _invitations(self, question: Question) -> dict[str, Any]:
        return await self._of_homes(
            question, lambda item: (not item["expires_ms"], item["expires_ms"], item["id"])
        )

    async def _of_homes(
        self, question: Question, key: Callable[[dict[str, Any]], Any]
    ) -> dict[str, Any]:
        """Return the lists of all workers, each for its own partitions, as one, in order."""
        most = number_of(question, "limit", LIMIT, LIMIT_MAX)
        found, missing = await self._worker_lines.ask_homes(question)
        items = sorted((item for _, part in found for item in part["items"]), key=key)
        return _listing(items, most, sum(part["total"] for _, part in found), missing)

    async def _rooms(self, question: Question) -> dict[str, Any]:
        most = number_of(question, "limit", LIMIT, LIMIT_MAX)
        # A room's connections are on all workers, so each is asked for all that may matter.
        found, missing = await self._worker_lines.ask_all({**question, "limit": LIMIT_MAX})
        rooms: dict[str, dict[str, Any]] = {}
        for _, part in found:
            for item in part["items"]:
                room = rooms.setdefault(item["room"], {**item, "connections": 0, "live": 0})
                room["connections"] += item["connections"]
                room["live"] += item["live"]
                room["head"] = max(room["head"], item["head"])
        items = sorted(rooms.values(), key=lambda room: (-room["connections"], room["room"]))
        total = max(len(items), *(part["total"] for _, part in found))
        return _listing(items, most, total, missing)

    async def _of_one_worker(self, question: Question) -> dict[str, Any]:
        """Ask any worker: each can ask the home of an account or a room."""
        return {"content": await self._worker_lines.ask_any(question)}

    async def _kick(self, question: Question) -> dict[str, Any]:
        if bool(text_of(question, "id")) == bool(text_of(question, "name")):
            raise NotAnswered("kick takes the id of a connection or a name")
        found, missing = await self._worker_lines.ask_all(question)
        return {"kicked": sum(answer["kicked"] for _, answer in found), "missing": missing}

    async def _reindex(self, question: Question) -> dict[str, Any]:
        found, missing = await self._worker_lines.ask_homes(question)
        partitions = sum(answer["partitions"] for _, answer in found)
        return {"partitions": partitions, "missing": missing}

    async def _top(self, _: Question) -> dict[str, Any]:
        status = await self._status({})
        found, missing = await self._worker_lines.ask_all({"do": "top"}, none_too=True)
        now = time.monotonic()
        passed_s, self._before_s = now - self._before_s, now
        for worker in status["workers"]:
            usage = usage_of(worker["pid"]) if worker["pid"] else None
            cpu_s = 0.0 if usage is None else usage.cpu_s
            mine = (worker["accepted"], worker["deliveries"], cpu_s)
            before = self._before.get(worker["pid"], mine)
            self._before[worker["pid"]] = mine
            changes = [
                max(0.0, (new - old) / passed_s) for new, old in zip(mine, before, strict=True)
            ]
            worker["accepted_per_s"] = round(changes[0], 1)
            worker["deliveries_per_s"] = round(changes[1], 1)
            worker["cpu_percent"] = round(100 * changes[2], 1)
            worker["resident_bytes"] = 0 if usage is None else usage.resident_bytes
        pids = {worker["pid"] for worker in status["workers"]}
        self._before = {pid: mine for pid, mine in self._before.items() if pid in pids}
        return {**status, **_merged(found), "missing": missing}

    # --- from the supervisor ----------------------------------------------------------------
    async def _drain(self, _: Question) -> dict[str, Any]:
        """Begin to stop the server, as TERM does."""
        if os.getppid() != self._supervisor_pid:
            # and its process id may belong to another process
            raise NotAnswered("the supervisor has ended")
        os.kill(self._supervisor_pid, signal.SIGTERM)
        return {"pid": self._supervisor_pid}

    async def _log_level(self, question: Question) -> dict[str, Any]:
        return await self._supervisor.ask("log-level", level=text_of(question, "level"))

    async def _restart(self, _: Question) -> dict[str, Any]:
        return await self._supervisor.ask("restart")

    async def _workers(self, question: Question) -> dict[str, Any]:
        return await self._supervisor.ask("workers", count=question.get("count"))

    async def _upgrade(self, _: Question) -> dict[str, Any]:
        return await self._supervisor.ask("upgrade")

    async def _upgrade_state(self, _: Question) -> dict[str, Any]:
        state = await self._supervisor.ask("upgrade-state")
        return {**state, "pid": self._supervisor_pid, "version": __version__}

    async def _reload(self, _: Question) -> dict[str, Any]:
        return await self._supervisor.ask("reload")


def _listing(items: list[Any], most: int, total: int, missing: list[str]) -> dict[str, Any]:
    """Return a truncated list. ``more``: how many items are missing, at least."""
    shown = items[:most]
    return {"items": shown, "more": max(0, total - len(shown)), "missing": missing}


def _merged(found: list[tuple[Asked, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Return the busiest rooms and the slowest readers of all workers.

    Every worker that follows a room sees all of its messages, but has its own connections.
    """
    rooms: dict[str, dict[str, Any]] = {}
    readers: list[dict[str, Any]] = []
    for one, answer in found:
        readers += [{"worker": one.number, **reader} for reader in answer["readers"]]
        for item in answer["rooms"]:
            room = rooms.setdefault(item["room"], {**item, "connections": 0})
            room["connections"] += item["connections"]
            room["messages_per_s"] = max(room["messages_per_s"], item["messages_per_s"])
    readers.sort(key=lambda reader: reader["owed_bytes"], reverse=True)
    busiest = sorted(rooms.values(), key=lambda room: -room["messages_per_s"])
    return {"rooms": busiest[:LIMIT], "readers": readers[:LIMIT]}
