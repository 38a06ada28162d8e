"""Tests of relay.client, file by file; both clients in faces/."""
