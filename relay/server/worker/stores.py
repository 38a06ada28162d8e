"""The partition files of one worker: writers of those it owns, one reader of each."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from relay.wire.envelopes import pack_entry, unpack_content

if TYPE_CHECKING:
    from relay.server.context import WorkerContext
