"""The worker as a process: it builds, runs and ends all other packages of the worker."""
