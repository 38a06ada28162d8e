"""Load on a real relay by Locust, in processes of its own: Locust patches the whole process.

``loadtest.user.RelayUser`` is for locustfiles of your own; ``loadtest/locustfile.py`` has ready
scenarios. docs/loadtest.md says how to run them, and how to size a machine by them.
"""
