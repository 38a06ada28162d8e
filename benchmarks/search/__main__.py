"""``python -m benchmarks.search``."""

from benchmarks import program

if __name__ == "__main__":
    program.run("benchmarks.search.run")
