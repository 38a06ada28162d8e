"""``python -m benchmarks.paired BASE``."""

import sys

from benchmarks.paired.compare import main

if __name__ == "__main__":
    sys.exit(main())
