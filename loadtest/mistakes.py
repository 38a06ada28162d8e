"""User errors: one line, and the run does not start."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from locust.runners import WorkerRunner

from relay.client.address import parse_address
from relay.errors import UsageError

if TYPE_CHECKING:
    from locust.env import Environment


@contextlib.contextmanager
def mistakes() -> Iterator[None]:
    """Exit at a UsageError."""
    try:
        yield
    except UsageError as error:
        print(f"loadtest: {error}", file=sys.stderr)
        raise SystemExit(2) from None  # an Exception would only be logged


def host_of(environment: Environment) -> str:
    """Return the address of the relay.

    Raises:
        UsageError: there is none, or it is not one.
    """
    host = environment.host or ""
    if not host.strip():
        raise UsageError(
            "no host: give --host relay://FINGERPRINT@HOST:PORT, as relay serve prints it"
        )
    parse_address(host)
    return host


def check_host(environment: Environment, **_: object) -> None:
    """Look at the host before a run; Locust calls it. In the web page it may be given later."""
    if isinstance(environment.runner, WorkerRunner):
        return  # its master says where the relay is
    autostart = getattr(environment.parsed_options, "autostart", False)
    if environment.web_ui is not None and not environment.host and not autostart:
        return
    with mistakes():
        host_of(environment)
