"""``python -m benchmarks.paired``."""

from benchmarks import program

if __name__ == "__main__":
    program.run("benchmarks.paired.compare")
