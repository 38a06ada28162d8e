"""The load on a server: publishers, subscribers and groups of clients, each in their own
processes.
"""
