"""The ``relay`` command: parse arguments, run a command, map errors to exit codes."""
