"""Tracks who is logged in under which name, on all workers.

A login is granted here, in the same turn in which its session is recorded: the account's state as
of the last commit decides, and later commits end the recorded sessions where necessary. An account
may have any number of sessions, each of its own client instance; a guest's name has one.

Invariant "Presence is derived": the same instance, identified by its secret, replaces its own
earlier connection at once. Which of the two is earlier is decided by when the connections were
accepted, not by the order of the claims: a worker that was stopped, or cut off from here, may
report the earlier one last. After this home has started (a restart), logins wait until the other
workers have reported their sessions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple, final

from relay.bus.link import Port
from relay.bus.messages import Claim, Claimed, Evict, Release, Tell
from relay.chat.names import INBOX_PREFIX, is_guest, shared
from relay.chat.partition import partition_of
from relay.server.worker.grouped import Grouped
from relay.wire.codes import ErrorCode

SETTLE_S_MAX: Final = 2.0
"""Other workers do not wait longer than this for the report of a silent worker."""


@final
class Holder:
    """A session with a name, on any worker."""

    __slots__ = ("name", "port", "secret", "since_us", "tag")

    def __init__(self, port: Port, claim: Claim) -> None:
        self.name = shared(claim.name)
        self.secret = claim.secret
        self.port = port
        self.tag = claim.tag
        self.since_us = claim.since_us


class Verdict(NamedTuple):
    """Whether the account allows a login."""

    code: int
    """An ErrorCode, or 0 if it is allowed."""
    text: str = ""
    root: bytes = b""
    operator: bool = False


class NameRegistry:
    """The names whose inbox logs have their home on this worker."""

    def __init__(
        self,
        clock: Callable[[], float],
        silent: Callable[[set[int]], bool],
        judge: Callable[[str, bytes], Verdict],
    ) -> None:
        """Create; logins wait until it is settled.

        Args:
            clock: monotonic seconds.
            judge: decides whether a name may log in with the key that was proved.
            silent: given the generations that have reported, returns True if a live worker has not.
        """
        self._clock = clock
        self._silent = silent
        self._judge = judge
        self.on_change: Callable[[str], None] = _nothing
        """Called with the name of an account when a session of it begins or its last one ends."""
        self._holders: Grouped[str, bytes, Holder] = Grouped(_secret_of)
        """Sessions by name and instance secret."""
        self._places: dict[Port, dict[int, Holder]] = {}
        """The same sessions by port and tag."""
        self._waiting: list[tuple[Port, Claim]] = []
        self._blocked_claims: dict[str, int] = {}
        """Names whose claims wait until the rights of their account are settled everywhere."""
        self._unconfirmed: dict[Port, set[tuple[str, bytes]]] = {}
        """Sessions (name, secret) that a worker had and is about to report again, unless they have
        ended."""
        self._announced: set[int] = set()
        self._settle_by = clock() + SETTLE_S_MAX
        self._settled = False

    def unsettle(self) -> None:
        """Partitions came from another worker: all workers must report their sessions again."""
        self._announced.clear()
        self._settle_by = self._clock() + SETTLE_S_MAX
        self._settled = False

    def announced(self, port: Port) -> None:
        """A worker has reported all its sessions."""
        for name, secret in self._unconfirmed.pop(port, ()):
            holder = self._holders.get(name, secret)
            if holder is not None and holder.port is port:
                self._forget(holder)
        self._announced.add(port.generation)
        self.settle()

    def settle(self) -> None:
        """Answer the waiting claims once all workers have reported or the time is up."""
        if not self._settled:
            if self._clock() < self._settle_by and self._silent(self._announced):
                return
            self._settled = True
        waiting, self._waiting = self._waiting, []
        for port, claim in waiting:
            if claim.name in self._blocked_claims:
                self._waiting.append((port, claim))
            else:
                self._answer(port, claim)

    def block_claims(self, name: str, blocked: bool) -> None:
        """Let the logins of an account wait, or go on: what they send would be dropped until then.

        Not those that are logged in, who are told what has changed.
        """
        if blocked:
            self._blocked_claims[name] = self._blocked_claims.get(name, 0) + 1
            return
        left = self._blocked_claims.pop(name, 1) - 1
        if left:
            self._blocked_claims[name] = left  # another change is not known everywhere yet
        else:
            self.settle()

    def claim(self, port: Port, claim: Claim) -> None:
        """A session claims a name, or reports that it has it."""
        if claim.held or (self._settled and claim.name not in self._blocked_claims):
            self._answer(port, claim)
        else:
            self._waiting.append((port, claim))
            self.settle()

    def mark_unconfirmed(self, port: Port, partition: int) -> None:
        """A worker is about to report its sessions again: those that it omits have ended."""
        unconfirmed = self._unconfirmed.setdefault(port, set())
        unconfirmed.update(
            (holder.name, holder.secret)
            for holder in self._places.get(port, {}).values()
            if partition_of(INBOX_PREFIX + holder.name) == partition
        )
        self._waiting = [
            (waiting, claim)
            for waiting, claim in self._waiting
            if waiting is not port or partition_of(INBOX_PREFIX + claim.name) != partition
        ]

    def forget_partition(self, partition: int) -> None:
        """Another worker is the home of these names now: the sessions are reported there."""
        for name in list(self._holders):
            if partition_of(INBOX_PREFIX + name) == partition:
                for holder in self._holders.values(name):
                    self._forget(holder)
        self._waiting = [
            (port, claim)
            for port, claim in self._waiting
            if partition_of(INBOX_PREFIX + claim.name) != partition
        ]

    def _answer(self, port: Port, claim: Claim) -> None:
        name, secret = claim.name, claim.secret
        self._unconfirmed.get(port, set()).discard((name, secret))
        verdict = self._judge(name, claim.key)
        if verdict.code:
            self.release(port, Release(claim.tag, name))
            port.send(_refused(claim, verdict))
            return
        holder = self._holders.get(name, secret)
        if holder is not None and (holder.port, holder.tag) != (port, claim.tag):
            if claim.since_us < holder.since_us:  # replaced by its own later connection
                port.send(Claimed(claim.tag, False, True, 0, "", b"", False))
                return
            holder.port.send(Evict(holder.tag))
        elif holder is None and name in self._holders and is_guest(name):
            port.send(_refused(claim, Verdict(int(ErrorCode.NAME_TAKEN))))
            return
        if holder is not None:
            self._forget(holder)
        holder = Holder(port, claim)
        self._holders.add(holder.name, holder)
        self._places.setdefault(port, {})[holder.tag] = holder
        port.send(Claimed(claim.tag, True, False, 0, "", verdict.root, verdict.operator))
        if not claim.held and not is_guest(name):
            self.on_change(name)

    def release(self, port: Port, message: Release) -> None:
        """A session ended. No effect if another one has taken its place."""
        holder = self._places.get(port, {}).get(message.tag)
        if holder is not None:
            self._forget(holder)
        self._waiting = [
            (waiting, claim)
            for waiting, claim in self._waiting
            if waiting is not port or claim.tag != message.tag
        ]

    def drop(self, port: Port) -> None:
        """A worker has died, and its sessions with it."""
        for holder in list(self._places.get(port, {}).values()):
            self._forget(holder)
        self._waiting = [waiting for waiting in self._waiting if waiting[0] is not port]
        self._unconfirmed.pop(port, None)
        self._announced.discard(port.generation)

    def _forget(self, holder: Holder) -> None:
        of_port = self._places[holder.port]
        del of_port[holder.tag]
        if not of_port:
            del self._places[holder.port]
        if self._holders.remove(holder.name, holder.secret) and not is_guest(holder.name):
            self.on_change(holder.name)

    def online(self, name: str) -> bool:
        """Return True if the user has a session now."""
        return name in self._holders

    def tell(self, name: str, envelope: bytes) -> None:
        """Send an envelope to each session of a user, on all workers."""
        for holder in self._holders.values(name):
            holder.port.send(Tell(holder.tag, envelope))

    def sessions(self, name: str) -> int:
        """Return how many sessions a user has now."""
        return len(self._holders.values(name))


def _secret_of(holder: Holder) -> bytes:
    return holder.secret


def _refused(claim: Claim, verdict: Verdict) -> Claimed:
    return Claimed(claim.tag, False, False, verdict.code, verdict.text, b"", False)


def _nothing(_: str) -> None:
    """Do nothing: default of ``on_change``."""
