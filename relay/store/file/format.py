"""The format versions of a partition's file.

Without SQLite, because the supervisor uses it, too.
"""

from __future__ import annotations

from typing import Final

FORMAT_VERSION: Final = 5
"""2: added the table ``state``. 3: added those of ``TABLES_OF_3``. 4: added ``member``. 5: added
``unflushed``. The writer upgrades an older file when it opens it (``create_tables``). A Relay that
does not know a format does not read it: it would not know, for example, who may read."""
FORMATS_READ: Final = (1, 2, 3, 4, FORMAT_VERSION)
FORMAT_OF_ROOMS: Final = 2
"""This format has the states of rooms, but not the entries that they result from."""
FORMAT_OF_CONTROLS: Final = 3
"""From this format on, control entries are marked."""
FORMAT_OF_MEMBERS: Final = 4
"""From this format on, memberships in rooms are stored."""
FORMAT_OF_TAILS: Final = 5
"""From this format on, the last ends of producers may be stored in the entries alone."""
