"""``python -m benchmarks.peers``."""

from benchmarks import program

if __name__ == "__main__":
    program.run("benchmarks.peers.run")
