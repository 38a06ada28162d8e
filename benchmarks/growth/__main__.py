"""``python -m benchmarks.growth``."""

from benchmarks import program

if __name__ == "__main__":
    program.run("benchmarks.growth.run")
