"""The supervisor: a synchronous program that forks the key agent and the workers.

It must not load an event loop, threads, OpenSSL or SQLite: a fork would copy their state.
"""
