"""The supervisor: a synchronous program that forks all other processes.

It must not load an event loop, threads, OpenSSL or SQLite: a fork would copy their state.
"""
