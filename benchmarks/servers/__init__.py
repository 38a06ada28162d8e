"""Servers to be measured: Relay, and the kernel floor."""
