"""Periodic tasks of a worker, which continue after an error in one run."""

from __future__ import annotations

import logging
from collections.abc import Callable

from relay.server.worker.out_of_memory import exit_if_out_of_memory

log = logging.getLogger("relay.worker")


def attempt(action: Callable[[], object]) -> None:
    """Call a function. If it raises, log the error and continue."""
    try:
        action()
    except Exception as error:
        exit_if_out_of_memory(error)
        log.exception("periodic_task_failed")
