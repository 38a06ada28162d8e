"""The client for asyncio event loops."""

from relay.client.aio.client import Client as Client
