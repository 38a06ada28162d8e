"""A worker process: one event loop that serves many connections.

``process.main.worker_main`` is its entry point after the fork.
"""
