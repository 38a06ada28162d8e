"""The commands on a server's own machine: they run it, control it, and care for its data."""
