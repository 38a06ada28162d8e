"""The client library: ``aio`` for asyncio, ``blocking`` for plain sockets and gevent."""
