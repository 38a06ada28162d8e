"""Builds a worker: the objects of every package, in the order of their dependencies."""

from __future__ import annotations

import os
import secrets
import time
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

from relay.chat.accounts.decide import Policy
from relay.server.worker.connection.announcement import Announcement
from relay.server.worker.connection.budgets.admission import Admission
from relay.server.worker.connection.budgets.source_usage import Sources
from relay.server.worker.connection.budgets.users import Users
from relay.server.worker.connection.budgets.waste import Waste
from relay.server.worker.connection.connections import Connections
from relay.server.worker.connection.counts import Counts
from relay.server.worker.connection.endings import Endings
from relay.server.worker.connection.received import ReceivedBytes
from relay.server.worker.connection.schedule import Schedule
from relay.server.worker.connection.services import (
    ConnectionBudgets,
    ConnectionServices,
)
from relay.server.worker.damaged_logs import DamagedLogs
from relay.server.worker.delivery.outbox import Flusher
from relay.server.worker.delivery.rush import Rush
from relay.server.worker.delivery.stalled import StalledConnections
from relay.server.worker.home.accounts.logs import AccountLogs
from relay.server.worker.home.accounts.names import NameRegistry
from relay.server.worker.home.accounts.operators import Operators
from relay.server.worker.home.accounts.requests import AccountsHome
from relay.server.worker.home.accounts.revocations import Revocations
from relay.server.worker.home.committing.commits import Commits
from relay.server.worker.home.committing.notes import CommitNotes
from relay.server.worker.home.committing.submission_queues import SubmissionQueues
from relay.server.worker.home.committing.writer import Writer
from relay.server.worker.home.direct.copies import Copies
from relay.server.worker.home.direct.parts import Direct
from relay.server.worker.home.direct.permissions import Permissions
from relay.server.worker.home.followers.attached_workers import Followers
from relay.server.worker.home.followers.publishing import Interest, Publishing
from relay.server.worker.home.followers.rosters import Rosters
from relay.server.worker.home.partitions import OwnPartitions
from relay.server.worker.home.parts import HomeParts
from relay.server.worker.home.receive import FromMembers
from relay.server.worker.home.rooms.requests import RoomsHome
from relay.server.worker.home.rooms.steady_clock import SteadyClock
from relay.server.worker.member.attachment import Attachment
from relay.server.worker.member.catchup import Catchup
from relay.server.worker.member.claims import Claims
from relay.server.worker.member.damage import DamageReports
from relay.server.worker.member.fanout import Fanout
from relay.server.worker.member.feed import Feeds
from relay.server.worker.member.forward import Forward
from relay.server.worker.member.pages import Pages
from relay.server.worker.member.parts import MemberParts
from relay.server.worker.member.presence import PresenceReports
from relay.server.worker.member.queries import PendingQueries
from relay.server.worker.member.receive import FromHomes
from relay.server.worker.member.repair import Repair
from relay.server.worker.member.routes import Routes
from relay.server.worker.member.subscriptions import Following
from relay.server.worker.process.loop.turn import Turn
from relay.server.worker.process.messaging.bus_dispatcher import BusDispatcher
from relay.server.worker.process.messaging.copy_sender import CopySenders
from relay.server.worker.process.messaging.own_home import OwnHome, OwnHomeStep
from relay.server.worker.process.parts import WorkerParts
from relay.server.worker.refusals import Refusals
from relay.server.worker.stored import stored_entry
from relay.server.worker.wakeup import Alarm, Wakeup
from relay.store.errors import StoreError
from relay.wire.codes import Survives
from relay.wire.identity import parse_spki
from relay.wire.messages import pack_ext
from relay.wire.packing import unpack_entry

if TYPE_CHECKING:
    from collections.abc import Callable

    from relay.bus.link import Link
    from relay.server.worker.process.dependencies import WorkerDependencies
    from relay.store.log import Reader


def build(needs: WorkerDependencies) -> WorkerParts:
    """Build the parts of a worker. Nothing runs yet, and no file is open."""
    clock = needs.clock
    links: dict[int, Link] = {}
    wakeup = Wakeup(needs.loop.call_soon)
    damaged = DamagedLogs(clock)
    refusals = Refusals()
    counts = Counts()
    rush = Rush()
    flusher = Flusher(clock, wakeup, rush)
    stalled = StalledConnections(clock, needs.slow_reader_timeout_s)
    own_home = OwnHome(needs.index, needs.generation, wakeup)
    routes = Routes(own_home.to_home, needs.owner_of, links)
    member = _build_member(needs, wakeup, routes, flusher, stalled, damaged, counts)
    revocations = Revocations(lambda: [own_home.to_member, *links.values()])
    home = _build_home(needs, wakeup, member, revocations, damaged, refusals)
    budgets = _build_budgets(needs, refusals, rush)
    schedule = Schedule(clock, needs.cpu_clock, wakeup, budgets.admission)
    services = _build_services(needs, wakeup, schedule, flusher, stalled, member, budgets, counts)
    dispatcher = BusDispatcher(home, member, wakeup)
    turn = Turn(
        clock,
        needs.cpu_clock,
        needs.nobody_waits,
        wakeup,
        Alarm(needs.loop, clock, wakeup),
        schedule,
        OwnHomeStep(own_home, dispatcher.handlers, home, member.presence, clock),
        home,
        member,
        flusher,
    )
    connections = Connections(services, needs.operations)
    connections.paused_until = lambda: turn.pace.until
    return WorkerParts(
        wakeup=wakeup,
        links=links,
        own_home=own_home,
        flusher=flusher,
        stalled=stalled,
        home=home,
        member=member,
        services=services,
        connections=connections,
        dispatcher=dispatcher,
        turn=turn,
    )


def _build_member(
    needs: WorkerDependencies,
    wakeup: Wakeup,
    routes: Routes,
    flusher: Flusher,
    stalled: StalledConnections,
    damaged: DamagedLogs,
    counts: Counts,
) -> MemberParts:
    damage = DamageReports(routes, needs.reader_at, damaged)
    pages = Pages()
    feeds = Feeds(routes, damaged, pages)
    reader_of, erasures, clock = needs.reader_of, needs.erasures, needs.clock
    catchup = Catchup(reader_of, erasures, clock, stalled, wakeup, counts.gaps, damage, pages)
    forward = Forward(routes)
    claims = Claims(routes)
    queries = PendingQueries(routes)
    return MemberParts(
        routes=routes,
        damage=damage,
        feeds=feeds,
        presence=PresenceReports(feeds, routes, wakeup),
        catchup=catchup,
        fanout=Fanout(feeds, flusher, catchup),
        repair=Repair(feeds, needs.reader_of, needs.clock, damage),
        forward=forward,
        claims=claims,
        queries=queries,
        attachment=Attachment(routes, feeds, claims, forward, queries, catchup),
        from_homes=FromHomes(routes, feeds, forward, claims, queries),
    )


def _build_home(
    needs: WorkerDependencies,
    wakeup: Wakeup,
    member: MemberParts,
    revocations: Revocations,
    damaged: DamagedLogs,
    refusals: Refusals,
) -> HomeParts:
    """Build the home. What it sends to other homes, it sends as a member."""
    interest = Interest()
    partitions = OwnPartitions(
        owns=needs.owns,
        open_partition=needs.open_partition,
        reader_of=needs.reader_of,
        wake=wakeup.request,
    )
    followers = Followers(partitions, interest)
    notes = CommitNotes(time.time_ns)
    operators = Operators(needs.reader_of, damaged)
    queues = SubmissionQueues(followers.attached, wakeup.request, operators)
    writer = Writer(
        partitions,
        followers,
        notes,
        queues,
        wake=wakeup.request,
        publishing=Publishing(interest, needs.erased),
        cpu_clock=needs.cpu_clock,
        refusals=refusals,
        damaged=damaged,
        commits=Commits(
            needs.run_in_thread,
            wakeup,
            needs.observe_commit_ns,
            clock_ns=time.monotonic_ns,
            wall_clock_ns=time.time_ns,
            power=needs.durability == "power",
        ),
    )
    queues.revoked.is_device = partial(_is_device, needs.reader_of)
    accounts = _build_accounts(needs, partitions, queues, notes, revocations, damaged)
    accounts.shares_room = lambda *asked: any(member.damage.answers(lambda one: one.shares(*asked)))
    names = NameRegistry(needs.clock, needs.silent, accounts.judge)
    names.on_change = notes.note_seen
    accounts.online, accounts.block_claims = names.online, names.block_claims
    accounts.tell = names.tell
    steady_ms = SteadyClock(time.time_ns, time.monotonic_ns).now_ms
    rooms = RoomsHome(partitions, queues.submit_own, needs.rules, operators, damaged, steady_ms)
    rooms.ask_account = member.queries.ask_then
    queues.direct = _build_direct(needs, member, queues, accounts, notes, damaged)
    writer.publishing.on_direct = queues.direct.copies.accepted

    def on_refused(index: int) -> None:
        followers.refuse_logs(index)
        notes.forget(index)
        accounts.forget()

    copies = queues.direct.copies
    partitions.on_opened = lambda partition: copies.resume(partition.pending())
    partitions.on_refused = on_refused
    partitions.on_available = followers.available
    partitions.on_removed = followers.committed
    partitions.prove = notes.prove
    rosters = Rosters(secrets.token_bytes, needs.clock)
    return HomeParts(
        partitions=partitions,
        followers=followers,
        interest=interest,
        queues=queues,
        writer=writer,
        permissions=queues.direct.permissions,
        rosters=rosters,
        names=names,
        accounts=accounts,
        rooms=rooms,
        rules=needs.rules,
        from_members=FromMembers(queues, followers, rosters, names, accounts, rooms, revocations),
    )


def _build_accounts(
    needs: WorkerDependencies,
    partitions: OwnPartitions,
    queues: SubmissionQueues,
    notes: CommitNotes,
    revocations: Revocations,
    damaged: DamagedLogs,
) -> AccountsHome:
    accounts = AccountsHome(
        AccountLogs(partitions.reader, stored_entry, needs.first_invitation),
        Policy(needs.registration, needs.identity.server_id),
        queues.submit_own,
        revocations,
        queues.operators,
        damaged,
        time.time_ns,
    )
    accounts.logs.inbox_entries_max = needs.limits.inbox_messages
    accounts.logs.on_long = notes.note_fold
    if needs.on_invitation_end is not None:
        accounts.on_invitation_end = needs.on_invitation_end
    return accounts


def _build_direct(
    needs: WorkerDependencies,
    member: MemberParts,
    queues: SubmissionQueues,
    accounts: AccountsHome,
    notes: CommitNotes,
    damaged: DamagedLogs,
) -> Direct:
    copies = Copies(
        send=lambda submission: senders.send(submission),
        reader_of=needs.reader_of,
        unpack=unpack_entry,
        confirm=notes.confirm,
        later=needs.loop.call_later,
        damaged=damaged,
    )
    senders = CopySenders(copies, member.forward)
    permissions = Permissions(
        member.queries.ask_then, accounts.logs.account, queues.submit, member.routes.port_of
    )
    return Direct(permissions, copies)


def _build_budgets(needs: WorkerDependencies, refusals: Refusals, rush: Rush) -> ConnectionBudgets:
    limits, clock = needs.limits, needs.clock
    return ConnectionBudgets(
        limits=limits,
        sources=Sources(limits, clock),
        users=Users(limits, clock),
        admission=Admission(needs.connections_max, limits, rush),
        received=ReceivedBytes(limits.received_mib << 20),
        refusals=refusals,
        waste=Waste(clock, needs.loop.call_later, limits, refusals),
    )


def _build_services(
    needs: WorkerDependencies,
    wakeup: Wakeup,
    schedule: Schedule,
    flusher: Flusher,
    stalled: StalledConnections,
    member: MemberParts,
    budgets: ConnectionBudgets,
    counts: Counts,
) -> ConnectionServices:
    spki, server_id = needs.identity.spki, needs.identity.server_id
    spki_hash = sha256(spki).digest()
    return ConnectionServices(
        clock=needs.clock,
        wall_clock_ns=time.time_ns,
        random_bytes=os.urandom,
        agent=needs.agent,
        spki=spki,
        spki_hash=spki_hash,
        hello_ext=pack_ext(server_id, spki_hash),
        announcement=Announcement(needs.agent, needs.identity.next_hash),
        tickets=needs.tickets,
        modulus_bytes=parse_spki(spki).modulus_bytes,
        durability=int(Survives[needs.durability.upper()]),
        guests=needs.guests,
        agent_name=needs.agent_name,
        timing=needs.timing,
        login_s=needs.login_s,
        overloaded_retry_s=needs.overloaded_retry_s,
        wakeup=wakeup,
        schedule=schedule,
        flusher=flusher,
        stalled=stalled,
        following=Following(member.feeds, member.catchup, member.presence, stalled),
        forward=member.forward,
        claims=member.claims,
        queries=member.queries,
        damage=member.damage,
        reader_of=needs.reader_of,
        reader_at=needs.reader_at,
        first_invitation=needs.first_invitation,
        budgets=budgets,
        endings=Endings(counts, time.time_ns),
        searching=needs.searching,
        generation=needs.generation,
        counts=counts,
    )


def _is_device(reader_of: Callable[[str], Reader], handle: str, key_id: bytes) -> bool | None:
    """See ``RevokedDevices.is_device``."""
    try:
        return AccountLogs(reader_of, stored_entry, b"").account(handle).may_ask(key_id)
    except StoreError:
        return None
