"""Accounts: what is decided about them, their states, devices and rights, and who is logged in."""
