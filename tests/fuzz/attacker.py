"""A process of hostile connections: ``python -m tests.fuzz.attacker ORDERS``.

It prints "ready", attacks from the next line of its input on until that ends, prints "arrived" once
each of its connections has begun to attack, and prints at last how often each attack was begun. It
is stopped by closing its standard input, or by its own deadline.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final

import msgspec

from tests.fuzz.attacks import ATTACKS, Attack, Stage
from tests.fuzz.visitor import Visitor

PAUSE_S: Final = 0.05
"""Minimal pause between two connections of one visitor, so that a refusal causes no busy loop."""
ENDED: Final = "ended by the server"
"""Counted beside the attacks: a visit that the server cut short."""
STEPS_MAX: Final = 30
"""The length of a visit in a mix; a single attack goes on until the server ends it."""


class Orders(msgspec.Struct, frozen=True):
    """The parameters of a process."""

    port: int
    attacks: list[str]
    connections: int
    seed: int
    seconds_max: float


async def visit(
    attacks: list[Attack], visitor: Visitor, done: Counter[str], arrived: Callable[[], None]
) -> None:
    """Open one connection and attack until its end; report when it begins to attack, or has failed
    to.
    """
    chance = visitor.chance
    attack = chance.choice(attacks)
    try:
        await visitor.open()
        if attack.stage >= Stage.HANDSHAKE:
            await visitor.shake()
        if attack.stage >= Stage.LOGIN:
            await visitor.log_in()
        arrived()
        alone = len(attacks) == 1
        fitting = [other for other in attacks if other.stage is attack.stage and other.again]
        for _ in range(1_000_000_000 if alone else chance.randrange(1, STEPS_MAX)):
            done[attack.name] += 1
            await attack.step(visitor)
            await asyncio.sleep(0)
            if not attack.again:
                return
            attack = chance.choice(fitting)
    except (OSError, TimeoutError):
        done[ENDED] += 1
    finally:
        arrived()
        visitor.close()


async def attack_until(
    orders: Orders, stop: asyncio.Event, arrived: Callable[[], None]
) -> Counter[str]:
    """Attack with all connections until told to stop; report once when all have arrived."""
    attacks = [ATTACKS[name] for name in orders.attacks]
    done: Counter[str] = Counter()
    coming = set(range(orders.connections))

    def came(number: int) -> None:
        if number in coming:
            coming.remove(number)
            if not coming:
                arrived()

    async def again_and_again(number: int) -> None:
        chance = random.Random(f"{orders.seed} {number}")
        while True:
            await visit(attacks, Visitor(orders.port, chance), done, partial(came, number))
            await asyncio.sleep(PAUSE_S * (1 + chance.random()))

    tasks = [asyncio.create_task(again_and_again(n)) for n in range(orders.connections)]
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(orders.seconds_max):
            await stop.wait()
            while not done.keys() - {ENDED}:  # a run without any attack would prove nothing
                await asyncio.sleep(PAUSE_S)
    if coming:
        coming.clear()
        arrived()
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            raise result
    return done


async def main() -> None:
    """Run the command; see the module's docstring."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def until_the_end() -> None:
        await asyncio.to_thread(sys.stdin.read)
        stop.set()

    waiting = loop.create_task(until_the_end())
    done = await attack_until(orders, stop, lambda: print("arrived", flush=True))
    print(msgspec.json.encode(done).decode(), flush=True)
    waiting.cancel()


if __name__ == "__main__":
    asyncio.run(main())
