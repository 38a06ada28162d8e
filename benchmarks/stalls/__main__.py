"""``python -m benchmarks.stalls``."""

from benchmarks import program

if __name__ == "__main__":
    program.run("benchmarks.stalls.search")
