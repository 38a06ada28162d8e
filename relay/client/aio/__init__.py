"""The client on an event loop of asyncio."""

from relay.client.aio.client import Client as Client
