"""The workers and users that follow a log, and publishing to them."""
