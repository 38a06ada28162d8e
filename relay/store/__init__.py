"""The durable, ordered log of every conversation."""

import logging

# A command that opens a data directory has no log: its events are no lines for a person.
logging.getLogger(__name__).addHandler(logging.NullHandler())
