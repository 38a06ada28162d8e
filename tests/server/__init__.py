"""Tests of the server's processes."""
