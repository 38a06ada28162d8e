"""The durable, ordered log of every conversation."""

import logging

# A command that opens a data directory has no log: these events are not meant for users.
logging.getLogger(__name__).addHandler(logging.NullHandler())
