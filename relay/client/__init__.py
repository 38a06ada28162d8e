"""The client library: ``aio`` for asyncio, ``blocking`` for plain sockets and gevent.

Its loggers are ``relay.client`` and those below it. They only log at DEBUG, and nothing unless the
program sets a handler and that level: everything a program must know arrives as an event or an
error.
"""

import logging

logging.getLogger(__name__).addHandler(logging.NullHandler())
