"""``python -m benchmarks.storm``."""

from benchmarks import program

if __name__ == "__main__":
    program.run("benchmarks.storm.run")
