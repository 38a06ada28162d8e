"""``python -m benchmarks.report``."""

from benchmarks import program

if __name__ == "__main__":
    program.run("benchmarks.report.peers")
