"""An operator's changes at run time, carried out by the supervisor."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from relay.declarations import as_toml, declarations
from relay.errors import RelayError, UsageError
from relay.server import logs
from relay.server.settings.live import LiveSettings
from relay.settings import Log, Settings

log = logging.getLogger("relay.supervisor")


class RuntimeChanges:
    """Changes the settings of all processes, which notice the changes themselves."""

    def __init__(
        self,
        wanted: Settings,
        live: LiveSettings,
        load: Callable[[], Settings],
        resolve: Callable[[Settings], Settings],
    ) -> None:
        """Create with the settings of the start.

        Args:
            wanted: as they were given.
            live: the effective, resolved settings.
            load: reads all their sources again; raises UsageError.
            resolve: replaces placeholder values, as at the start.
        """
        self._wanted = wanted
        self._live = live
        self._load = load
        self._resolve = resolve

    @property
    def requests(self) -> Mapping[str, Callable[[Mapping[str, Any]], object]]:
        """The requests that the control process may make, by name, besides a reload."""
        return {"log-level": self.set_log_level}

    def expedite_stop(self) -> None:
        """Make a stop fast: no waiting, and all clients are told at once."""
        current = self._live.current
        server = msgspec.structs.replace(current.server, drain_delay_s=0.0, drain_spread_s=0.0)
        self._live.publish(msgspec.structs.replace(current, server=server))

    @property
    def stop_timeout_s(self) -> float:
        """How long a graceful stop may take."""
        server = self._live.current.server
        return server.drain_delay_s + server.drain_spread_s + server.graceful_timeout_s

    def set_log_level(self, question: Mapping[str, Any]) -> dict[str, str]:
        """Change the log level everywhere. Raises UsageError: there is no such level."""
        current = self._live.current
        try:
            changed = msgspec.convert(
                {"level": question.get("level"), "format": current.log.format}, Log
            )
        except msgspec.ValidationError:
            raise UsageError("log level: expected debug, info, warning or error") from None
        self._live.publish(msgspec.structs.replace(current, log=changed))
        logs.set_level(changed)
        log.warning("log_level_changed", extra={"to": changed.level, "was": current.log.level})
        return {"level": changed.level, "before": current.log.level}

    def reload(self) -> dict[str, Any]:
        """Read the settings again, and apply the changes: all of them or none.

        Raises:
            RelayError: they have errors, or one has changed that needs a restart. It is logged, and
                the server continues with its previous settings.
        """
        try:
            wanted = self._load()
            changed = _changes(self._wanted, wanted)
            self._live.publish(_with(self._live.current, self._resolve(wanted)))
        except RelayError as error:
            log.error("reload_refused", extra={"problems": str(error).split("\n")})
            raise
        self._wanted = wanted
        logs.set_level(wanted.log)
        log.warning("reloaded", extra={"changed": changed})
        return {"changed": changed}


def _with(holding: Settings, wanted: Settings) -> Settings:
    """Return the effective settings, with the reloadable ones taken from others."""
    live: dict[str, dict[str, Any]] = {}
    for setting in declarations():
        if setting.live:
            section, key = setting.path.split(".")
            live.setdefault(section, {})[key] = wanted.value_of(setting.path)
    sections = {
        name: msgspec.structs.replace(getattr(holding, name), **values)
        for name, values in live.items()
    }
    return msgspec.structs.replace(holding, **sections)


def _changes(before: Settings, after: Settings) -> dict[str, str]:
    """Return the changes, by name, as text.

    Raises:
        UsageError: one of them needs a restart.
    """
    changed: dict[str, str] = {}
    refused = []
    for setting in declarations():
        old, new = before.value_of(setting.path), after.value_of(setting.path)
        if old == new:
            continue
        changed[setting.path] = f"{as_toml(old)} -> {as_toml(new)}"
        if not setting.live:
            refused.append(
                f"{setting.path}: changes only with a restart; it is {as_toml(old)}, and "
                f"{as_toml(new)} was found: restart, or put it back"
            )
    if refused:
        raise UsageError("\n".join(refused))
    return changed
