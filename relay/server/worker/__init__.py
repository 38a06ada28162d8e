"""One worker: one event loop, many connections. Entered by ``main.worker_main`` after the fork."""
