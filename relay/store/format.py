"""Which formats a partition's file has had. Without SQLite: the supervisor looks here, too."""

from __future__ import annotations

from typing import Final

FORMAT_VERSION: Final = 5
"""2: with the table ``state``. 3: with those of ``TABLES_OF_3``. 4: with ``member``. 5: with
``unflushed``. The writer brings an older one up to date when it opens it (``create_tables``); a
Relay that does not know what they mean, such as who may read, reads it no more."""
FORMATS_READ: Final = (1, 2, 3, 4, FORMAT_VERSION)
FORMAT_OF_ROOMS: Final = 2
"""It knows the states of rooms, and not which entries they are made of."""
FORMAT_OF_CONTROLS: Final = 3
"""From it on a file knows which of its entries are controls."""
FORMAT_OF_MEMBERS: Final = 4
"""From it on a file knows in which of its rooms somebody is a lasting member."""
FORMAT_OF_TAILS: Final = 5
"""From it on the last ends of producers may be in the entries alone."""
