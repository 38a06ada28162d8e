"""Tests of relay.client, file by file; both faces in faces/."""
