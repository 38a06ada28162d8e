"""The ``relay`` command: parse, call, map errors to exit codes."""
