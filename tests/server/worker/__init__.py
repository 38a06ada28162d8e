"""Tests of relay.server.worker: whole workers in one loop."""
