"""From the command to the first fork: what is held, recovered and given to the processes."""
