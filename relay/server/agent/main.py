"""The key agent's process: load the key, serve it, stop. Entered after the fork."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import socket
import time
from functools import partial
from typing import TYPE_CHECKING, Final

import uvloop

from relay import event_loops
from relay.local_sockets import NamedListener
from relay.reopening import Reopening
from relay.server import logs
from relay.server.agent.keys import Keys, load_keys
from relay.server.agent.protocol import Identity
from relay.server.agent.service import Service
from relay.server.agent.ticket_keys import TicketKeyMaker, packed_keys, unpacked_keys
from relay.server.periodic import every_until
from relay.server.system.prctl import forbid_inspection, no_new_privileges
from relay.wire.identity import fingerprint, self_test

if TYPE_CHECKING:
    from relay.server.context import AgentContext

HEARTBEAT_S: Final = 0.4
"""Less than half of the time after which it counts as away (``FRESH_NS``)."""
BACKLOG: Final = 512
log = logging.getLogger("relay.agent")


def agent_main(context: AgentContext) -> int:
    """Run the key agent until it is asked to stop. Returns its exit code."""
    forbid_inspection()
    no_new_privileges()
    separation = context.separation
    self_test()
    keys = load_keys(context)
    listener = NamedListener(context.socket_path, BACKLOG)
    with separation.lowered():
        sock = listener.open()
    separation.become_agent()
    forbid_inspection()  # another user's process memory became readable again
    with event_loops.runner(uvloop.new_event_loop) as runner:
        runner.run(_serve(context, keys, listener, sock))
    return 0


async def _serve(
    context: AgentContext,
    keys: Keys,
    listener: NamedListener,
    sock: socket.socket,
) -> None:
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGQUIT):
        loop.add_signal_handler(number, stop.set)
    loop.add_reader(context.parent_fd, stop.set)
    row = context.scoreboard.row(0)
    separated = context.separation.server
    kept, register = context.ticket_keys, context.tickets
    ticket_keys = TicketKeyMaker(
        register.begin,
        secrets.token_bytes,
        time.monotonic,
        lambda keys: kept.write(packed_keys(keys)),
        unpacked_keys(kept.read(), register.knows),
    )
    ticket_keys.rotate()
    service = Service(
        keys.key.unwrap,
        Identity(keys.server_id, keys.next_hash, keys.key.spki),
        observe_ns=row.observer("agent_unwrap_ns"),
        ticket_keys=ticket_keys,
        workers_uid=context.separation.server_uid,
        prove=partial(keys.key.prove_next, next_hash=keys.next_hash) if keys.next_hash else None,
    )
    await service.listen(sock)
    unwrapped, turned_away = row.get("agent_unwraps"), row.get("agent_busy")
    row.set("heartbeat_ns", time.monotonic_ns())
    context.boot.ready(fingerprint(keys.key.spki))
    reopening = Reopening(listener, partial(_listen_again, service, listener))

    def beat() -> None:
        if not service.stuck:
            row.set("heartbeat_ns", time.monotonic_ns())
        if (settings := context.live.changed()) is not None:
            logs.set_level(settings.log)
        logs.report_left_out(time.monotonic())
        service.rotate_ticket_keys()
        row.set("agent_queue", service.waiting)
        row.set("agent_unwraps", unwrapped + service.unwrapped)
        row.set("agent_busy", turned_away + service.turned_away)
        # In another user's directory the agent cannot recreate it, and nothing deletes it there.
        if separated is None:
            reopening.check()

    await every_until(stop, HEARTBEAT_S, beat)
    loop.remove_reader(context.parent_fd)
    service.close()
    if separated is None:
        listener.remove()


async def _listen_again(service: Service, listener: NamedListener) -> None:
    path = str(listener.path)
    try:
        await service.listen(listener.open())
    except OSError as error:
        log.warning("agent_socket_failed", extra={"path": path, "reason": error.strerror})
    else:
        log.warning("agent_socket_replaced", extra={"path": path})
