"""The client for plain sockets: no event loop, no threads; gevent may patch it."""

from relay.client.blocking.client import BlockingClient as BlockingClient
