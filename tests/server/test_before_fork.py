"""What all workers can share is loaded before they are forked: all of it, and nothing else."""

from __future__ import annotations

import json
import subprocess
import sys

SCRIPT = """
import contextlib, importlib, json, os, sys
from importlib.abc import MetaPathFinder
import relay.cli.server_commands.serve, relay.server.startup.start
import relay.server.worker.process.before_fork
loaded = set(sys.modules)
read_fd, write_fd = os.pipe()
if os.fork() == 0:
    import relay.server.worker.process.main
    own = [name for name in sys.modules if name.startswith("relay.") and name not in loaded]
    os.write(write_fd, json.dumps(own).encode())
    os._exit(0)
os.close(write_fd)
with open(read_fd) as file:
    own = json.load(file)
assert own

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1:]:
            raise ImportError(name)

sys.meta_path.insert(0, Refuse())
for name in own:
    with contextlib.suppress(ImportError):
        importlib.import_module(name)
missing = [name for name in own if name in sys.modules]
print(json.dumps([name for name in missing if not hasattr(sys.modules[name], "__path__")]))
"""
NOT_BEFORE = ("asyncio", "uvloop", "apsw", "cryptography", "ssl", "_ssl", "concurrent")
"""What no process has at a fork. ``concurrent`` has hooks for threads."""


def test_all_that_can_be_shared_is_named() -> None:
    """A module that a worker imports itself needs a loop, a thread, OpenSSL or SQLite."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, *NOT_BEFORE], capture_output=True, text=True, check=True
    )
    assert json.loads(ended.stdout) == [], "name these in before_fork.py"
