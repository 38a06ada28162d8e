"""The limits of the protocol, and of what one connection can make the server hold.

Each has its unit and its reason. Settings may lower some of the server's limits; those of the
protocol are constants, part of docs/protocol.md. Limits of a whole worker or process are in the
module that enforces them. Relations are asserted at import, so a careless change fails at once.
"""

from __future__ import annotations

from typing import Final

# --- frames and records (docs/protocol.md, "Records") ---------------------------------------------
FRAME_HEADER_BYTES: Final = 4
"""Type u8 and length u24."""
HANDSHAKE_BODY_BYTES_MAX: Final = 4096
"""Frozen for all versions: a peer that uses another protocol is dropped after four bytes."""
RECORD_CONTENT_BYTES_MAX: Final = 65_536
RECORD_INNER_BYTES_MAX: Final = 69_632
"""Content, type byte and padding: content rounded up to a multiple of 4096 (strict padding)."""
TAG_BYTES: Final = 16
RECORD_BODY_BYTES_MIN: Final = 1 + TAG_BYTES
RECORD_BODY_BYTES_MAX: Final = RECORD_INNER_BYTES_MAX + TAG_BYTES
LOGIN_RECORD_BODY_BYTES_MAX: Final = 4096 + TAG_BYTES
"""For a client's record before its HELLO was accepted: an unknown peer cannot make the server hold
more. A HELLO has at most 600 bytes; with strict padding its record has this size."""
SEALED_BYTES_MAX: Final = FRAME_HEADER_BYTES + RECORD_CONTENT_BYTES_MAX + 1024 + TAG_BYTES
"""The largest record that this side creates: it pads less than a peer may."""

# --- envelopes --------------------------------------------------------------------------------
ENVELOPES_PER_RECORD_MAX: Final = 1024
"""A client's record with more is refused: it limits the work caused by one record (NATS limits it
by max_payload and its read buffer). A server's record is only limited by its size."""
ENVELOPE_FIELDS_MAX: Final = 24
"""Known fields, and trailing ones of a later version."""
ENVELOPE_DEPTH_MAX: Final = 8
ENVELOPE_VALUES_MAX: Final = 1024
"""Elements of all arrays of a client's envelope: it has nine at most, the others are for later
versions. An envelope is unpacked in one step: 64 KiB of empty arrays would take some ms."""
BODY_BYTES_MAX: Final = 32_768
"""Half a record, so that an entry with all its fields always fits in one (IRC 512, NATS 1 MiB)."""
CONTENT_TYPE_BYTES_MAX: Final = 64
ERROR_TEXT_BYTES_MAX: Final = 512
DISPLAY_NAME_CHARS_MAX: Final = 64
AGENT_CHARS_MAX: Final = 64
NAME_CHARS_MAX: Final = 32
EPOCH_BYTES: Final = 8
PRODUCER_BYTES: Final = 16
PRODUCER_BYTES_OF_0_1: Final = 8
INSTANCE_SECRET_BYTES: Final = 16
"""Proves in HELLO that a connection comes from the same instance of a client as an earlier one."""
SESSION_SECRET_BYTES: Final = 32
"""What a client sends under the server's RSA key: the size of an AES-256 key."""
KEY_ID_BYTES_MAX: Final = 32
"""For a reader's check; all existing ones have ``KEY_ID_BYTES``, or none."""
KEY_ID_BYTES: Final = 16
ROOT_BYTES: Final = 32
DEVICE_NAME_BYTES_MAX: Final = 64
"""Of a device's label."""
TICKET_KEYS_MAX: Final = 4
"""Keys that open tickets at a time: the current one, the previous one, and two more in case keys
are created too early."""
ROOM_TOPIC_BYTES_MAX: Final = 400
"""About what IRC's servers allow."""
ROOM_TITLE_BYTES_MAX: Final = 4 * DISPLAY_NAME_CHARS_MAX
ROOM_REASON_BYTES_MAX: Final = 200
"""Of the reason for a kick, ban or mute."""
TOKEN_BYTES: Final = 32
"""Of an invitation: unguessable, so that a plain hash of it may be stored."""
U32_MAX: Final = 2**32 - 1
U63_MAX: Final = 2**63 - 1
"""Counters and sequence numbers: SQLite's integers are signed 64 bit."""

# --- pages and history ------------------------------------------------------------------------
PAGE_BYTES_MAX: Final = 60_000
"""Rows in one history page or catch-up record: fits a record with room for the envelope's head."""
PAGE_ENTRIES_MAX: Final = 1000
HISTORY_ON_JOIN_MAX: Final = 10_000
SEARCH_BYTES_MAX: Final = 256
"""Of a search text."""
SEARCH_COUNT_MAX: Final = 100
"""Messages of one answer."""

# --- what one connection may make the server hold ---------------------------------------------
OUTBOX_BYTES_MAX: Final = 129_024
"""Unsealed batch references of one connection; beyond it all its logs fall behind.

Invariant "Falling behind"."""
ANSWERS_BYTES_MAX: Final = 65_536
"""Unread answers of a connection; beyond it, its further requests wait."""
KERNEL_NOTSENT_LOWAT_BYTES: Final = 65_536
CONNECTION_BYTES_MAX: Final = 262_144
"""The outbox, one sealed record in the transport, and the kernel's unsent bytes."""
LOGS_PER_CONNECTION_MAX: Final = 1024
SENDS_UNACKNOWLEDGED_MAX: Final = 1024
"""A client's window per connection: sends the server takes before it stops reading the socket."""
SENDS_UNACKNOWLEDGED_BYTES_MAX: Final = 262_144
REPEATS_BACK_MAX: Final = 65_536
"""A counter used this many messages ago is not searched for: 64 windows of unacknowledged sends. It
limits the cost of an old id to 17 levels of the skip list."""
EDITS_MAX: Final = 200
"""Of one message: a redaction reads and writes all of them in its commit, of then at most 6 MiB."""
EDITS_SHOWN_MAX: Final = 64
"""The last edits of a message, of which the newest unerased one is its current text."""
RETRY_MS: Final = 500
"""Delay before a client that was refused with BUSY or UNAVAILABLE retries."""
RETRY_MS_MAX: Final = 60_000
"""No server requests more, and a client treats more as this: no server can make it wait for weeks.
"""
INVITATION_DAYS: Final = 7.0
"""How long an invitation to the server is valid unless another time is given."""
INVITATION_DAYS_MAX: Final = 3650.0
ROSTER_NAMES_MAX: Final = 200
"""With more members a room's join and leave events only carry the count."""

assert RECORD_INNER_BYTES_MAX >= RECORD_CONTENT_BYTES_MAX + 1
assert RECORD_INNER_BYTES_MAX % 4096 == 0
assert BODY_BYTES_MAX + 1024 <= PAGE_BYTES_MAX <= RECORD_CONTENT_BYTES_MAX - 1024
assert OUTBOX_BYTES_MAX + SEALED_BYTES_MAX + KERNEL_NOTSENT_LOWAT_BYTES <= CONNECTION_BYTES_MAX
assert REPEATS_BACK_MAX >= SENDS_UNACKNOWLEDGED_MAX
