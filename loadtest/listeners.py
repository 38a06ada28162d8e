"""Joins the load test to Locust's events. Nothing else listens, and no import has effects."""

from __future__ import annotations

from typing import Final

from loadtest import hooks, mistakes, parameters, shapes, summary, swarm, web_page

_GENERAL: Final = (
    ("init_command_line_parser", summary.add_option),
    ("init", mistakes.check_host),
    ("init", swarm.begin),
    ("init", web_page.extend),
    ("init", summary.await_end),
    ("spawning_complete", swarm.spawned),
    ("reset_stats", swarm.forget_spawning),
    ("test_start", swarm.reset),
    ("test_stopping", summary.dismiss_workers),
    ("report_to_master", swarm.report),
    ("worker_report", swarm.reported),
)
"""For every locustfile with relay users."""
_SCENARIOS: Final = (("init_command_line_parser", parameters.add_options), ("init", shapes.choose))
"""For the ready scenarios."""
_listening: Final[set[str]] = set()


def install() -> None:
    """Measure, check and report. Idempotent."""
    _install("general", _GENERAL)


def install_scenarios() -> None:
    """Offer the ready scenarios and their parameters, too."""
    install()
    _install("scenarios", _SCENARIOS)


def _install(name: str, listeners: tuple[tuple[str, hooks.Listener], ...]) -> None:
    if name not in _listening:
        _listening.add(name)
        for event, listener in listeners:
            hooks.listen(event, listener)
