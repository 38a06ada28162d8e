"""``python -m benchmarks.report [RESULTS.json]``."""

import sys

from benchmarks.report.peers import main

if __name__ == "__main__":
    sys.exit(main())
