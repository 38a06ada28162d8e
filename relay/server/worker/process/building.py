"""Builds a worker: the objects of every package, in the order of their dependencies."""

from __future__ import annotations

import secrets
import time
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING

from relay.chat.accounts.decide import Policy
from relay.server.worker.connection.admission import Admission
from relay.server.worker.connection.announcement import Announcement
from relay.server.worker.connection.connections import Connections
from relay.server.worker.connection.counts import Counts
from relay.server.worker.connection.endings import Endings
from relay.server.worker.connection.received import ReceivedBytes
from relay.server.worker.connection.schedule import Schedule
from relay.server.worker.connection.services import (
    ConnectionBudgets,
    ConnectionServices,
)
from relay.server.worker.connection.source_usage import Sources
from relay.server.worker.connection.users import Users
from relay.server.worker.connection.waste import Waste
from relay.server.worker.damaged_logs import DamagedLogs
from relay.server.worker.delivery.outbox import Flusher
from relay.server.worker.delivery.rush import Rush
from relay.server.worker.delivery.stalled import StalledConnections
from relay.server.worker.home.account_logs import AccountLogs
from relay.server.worker.home.accounts import AccountsHome
from relay.server.worker.home.commits import Commits
from relay.server.worker.home.copies import Copies
from relay.server.worker.home.direct import Direct
from relay.server.worker.home.followers import Followers
from relay.server.worker.home.home import Home
from relay.server.worker.home.names import NameRegistry
from relay.server.worker.home.notes import CommitNotes
from relay.server.worker.home.partitions import OwnPartitions
from relay.server.worker.home.permissions import Permissions
from relay.server.worker.home.publishing import Interest, Publishing
from relay.server.worker.home.receive import FromMembers
from relay.server.worker.home.revocations import Revocations
from relay.server.worker.home.rooms import RoomsHome
from relay.server.worker.home.rosters import Rosters
from relay.server.worker.home.steady_clock import SteadyClock
from relay.server.worker.member.attachment import Attachment
from relay.server.worker.member.catchup import Catchup
from relay.server.worker.member.claims import Claims
from relay.server.worker.member.damage import DamageReports
from relay.server.worker.member.fanout import Fanout
from relay.server.worker.member.feed import Feeds
from relay.server.worker.member.forward import Forward
from relay.server.worker.member.pages import Pages
from relay.server.worker.member.presence import PresenceReports
from relay.server.worker.member.queries import PendingQueries
from relay.server.worker.member.receive import FromHomes
from relay.server.worker.member.repair import Repair
from relay.server.worker.member.routes import Routes
from relay.server.worker.member.subscriptions import Following
from relay.server.worker.process.bus_dispatcher import BusDispatcher
from relay.server.worker.process.copy_sender import CopySenders
from relay.server.worker.process.own_home import OwnHome
from relay.server.worker.process.parts import WorkerParts
from relay.server.worker.process.turn import Turn
from relay.server.worker.refusals import Refusals
from relay.server.worker.stored import stored_entry
from relay.server.worker.wakeup import Wakeup
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
    refusals = Refusals()
    own_home = OwnHome(needs.index, needs.generation, wakeup)
    routes = Routes(own_home.to_home, needs.owner_of, links)
    damaged = DamagedLogs(clock)
    damage = DamageReports(routes, needs.reader_at, damaged)

    # delivery
    rush = Rush()
    flusher = Flusher(clock, wakeup, rush)
    stalled = StalledConnections(clock, needs.slow_reader_timeout_s)

    # home
    interest = Interest()
    rosters = Rosters(secrets.token_bytes, clock)
    revocations = Revocations(lambda: [own_home.to_member, *links.values()])
    spki, server_id = needs.identity.spki, needs.identity.server_id
    spki_hash = sha256(spki).digest()
    partitions = OwnPartitions(
        owns=needs.owns,
        open_partition=needs.open_partition,
        reader_of=needs.reader_of,
        wake=wakeup.request,
    )
    followers = Followers(partitions, interest)
    notes = CommitNotes(time.time_ns)
    home = Home(
        partitions,
        followers,
        notes,
        wake=wakeup.request,
        publishing=Publishing(interest, needs.erased),
        cpu_clock=needs.cpu_clock,
        refusals=refusals,
        commits=Commits(
            needs.run_in_thread,
            wakeup,
            needs.observe_commit_ns,
            clock_ns=time.monotonic_ns,
            wall_clock_ns=time.time_ns,
            power=needs.durability == "power",
        ),
    )
    accounts = AccountsHome(
        AccountLogs(partitions.reader, stored_entry, needs.first_invitation),
        Policy(needs.registration, server_id),
        home.submit_own,
        revocations,
        damaged,
        time.time_ns,
    )
    home.revoked.is_device = partial(_is_device, needs.reader_of)
    accounts.logs.inbox_entries_max = needs.limits.inbox_messages
    accounts.logs.on_long = notes.note_fold
    if needs.on_invitation_end is not None:
        accounts.on_invitation_end = needs.on_invitation_end

    def on_refused(index: int) -> None:
        followers.refuse_logs(index)
        notes.forget(index)
        accounts.forget()

    partitions.on_refused = on_refused
    partitions.on_available = followers.available
    partitions.on_removed = followers.committed
    partitions.prove = notes.prove
    steady_ms = SteadyClock(time.time_ns, time.monotonic_ns).now_ms
    rooms = RoomsHome(partitions, home.submit_own, needs.rules, damaged, steady_ms)
    names = NameRegistry(clock, needs.silent, accounts.judge)
    names.on_change = notes.note_seen
    accounts.online, accounts.block_claims = names.online, names.block_claims
    accounts.tell = names.tell
    accounts.shares_room = lambda *asked: any(damage.answers(lambda one: one.shares(*asked)))

    # member
    pages = Pages()
    feeds = Feeds(routes, damaged, pages)
    presence = PresenceReports(feeds, routes, wakeup)
    counts = Counts()
    catchup = Catchup(
        needs.reader_of, needs.erasures, clock, stalled, wakeup, counts.gaps, damage, pages
    )
    fanout = Fanout(feeds, flusher, catchup)
    repair = Repair(feeds, needs.reader_of, clock, damage)
    forward = Forward(routes)
    claims = Claims(routes)
    queries = PendingQueries(routes)
    rooms.ask_account = queries.ask_then
    attachment = Attachment(routes, feeds, claims, forward, queries, catchup)

    # home and member: a home that sends something to another home does so as a member
    copies = Copies(
        send=lambda submission: copy_senders.send(submission),
        reader_of=needs.reader_of,
        unpack=unpack_entry,
        confirm=notes.confirm,
        later=needs.loop.call_later,
        damaged=damaged,
    )
    copy_senders = CopySenders(copies, forward)
    partitions.on_opened = lambda partition: copies.resume(partition.pending())
    home.publishing.on_direct = copies.accepted
    permissions = Permissions(queries.ask_then, accounts.logs.account, home.submit, routes.port_of)
    home.direct = Direct(permissions, copies)

    # connection
    admission = Admission(needs.connections_max, needs.limits, rush)
    schedule = Schedule(clock, needs.cpu_clock, wakeup, admission)
    budgets = ConnectionBudgets(
        limits=needs.limits,
        sources=Sources(needs.limits, clock),
        users=Users(needs.limits, clock),
        admission=admission,
        received=ReceivedBytes(needs.limits.received_mib << 20),
        refusals=refusals,
        waste=Waste(clock, needs.loop.call_later, needs.limits, refusals),
    )
    services = ConnectionServices(
        counts=counts,
        clock=clock,
        wall_clock_ns=time.time_ns,
        random_bytes=secrets.token_bytes,
        agent=needs.agent,
        spki=spki,
        spki_hash=spki_hash,
        tickets=needs.tickets,
        durability=int(Survives[needs.durability.upper()]),
        guests=needs.guests,
        hello_ext=pack_ext(server_id, spki_hash),
        announcement=Announcement(needs.agent, needs.identity.next_hash),
        modulus_bytes=parse_spki(spki).modulus_bytes,
        agent_name=needs.agent_name,
        timing=needs.timing,
        login_s=needs.login_s,
        overloaded_retry_s=needs.overloaded_retry_s,
        wakeup=wakeup,
        schedule=schedule,
        flusher=flusher,
        stalled=stalled,
        following=Following(feeds, catchup, presence, stalled),
        forward=forward,
        claims=claims,
        queries=queries,
        damage=damage,
        reader_of=needs.reader_of,
        reader_at=needs.reader_at,
        first_invitation=needs.first_invitation,
        budgets=budgets,
        endings=Endings(counts, time.time_ns),
        searching=needs.searching,
        generation=needs.generation,
    )

    # process
    dispatcher = BusDispatcher(
        FromMembers(home, followers, rosters, names, accounts, rooms, revocations),
        FromHomes(routes, feeds, forward, claims, queries),
        attachment,
        home,
        partitions,
        interest,
        wakeup,
    )
    turn = Turn(
        loop=needs.loop,
        clock=clock,
        cpu_clock=needs.cpu_clock,
        wakeup=wakeup,
        own_home=own_home,
        handlers=dispatcher.handlers,
        schedule=schedule,
        home=home,
        permissions=permissions,
        interest=interest,
        rosters=rosters,
        feeds=feeds,
        forward=forward,
        presence=presence,
        repair=repair,
        fanout=fanout,
        flusher=flusher,
        catchup=catchup,
    )
    connections = Connections(services, needs.operations)
    connections.paused_until = lambda: turn.pace.until
    return WorkerParts(
        wakeup=wakeup,
        links=links,
        routes=routes,
        partitions=partitions,
        followers=followers,
        home=home,
        interest=interest,
        rosters=rosters,
        names=names,
        accounts=accounts,
        rooms=rooms,
        rules=needs.rules,
        feeds=feeds,
        fanout=fanout,
        repair=repair,
        catchup=catchup,
        forward=forward,
        claims=claims,
        queries=queries,
        attachment=attachment,
        stalled=stalled,
        flusher=flusher,
        own_home=own_home,
        dispatcher=dispatcher,
        turn=turn,
        services=services,
        connections=connections,
        refusals=refusals,
        budgets=budgets,
    )


def _is_device(reader_of: Callable[[str], Reader], handle: str, key_id: bytes) -> bool | None:
    """See ``RevokedDevices.is_device``."""
    try:
        return AccountLogs(reader_of, stored_entry, b"").account(handle).may_ask(key_id)
    except StoreError:
        return None
