"""``python -m loadtest.options``: every flag of a run of the ready scenarios, Locust's and ours.

``locust --help`` does not read a locustfile, so it does not list ours.
"""

from locust.argument_parser import get_parser

from loadtest import listeners

if __name__ == "__main__":
    listeners.install_scenarios()
    get_parser().print_help()
