"""A command's process: its streams, signals and interrupts, and the exit code that it ends with."""
