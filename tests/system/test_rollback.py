"""Upgrade to this version, which changes the data format, and roll back to the version before.

As docs/operations.md, "Upgrading", describes: from 0.1.0, which has no backups, with a copy; from a
version that has them, with a backup. The earlier versions really run.
"""

from __future__ import annotations

import json
import shutil
from hashlib import sha256
from pathlib import Path

from relay import BlockingClient
from relay.client.devices.device_key import DeviceKey
from relay.store.file.format import FORMAT_VERSION
from tests.support.cluster import Relay, run_relay
from tests.support.revisions import Revision
from tests.system.test_old_data import LOBBY, formats, unpacked

VERSION_0_1_0 = "cea2a68"
OF_FORMAT_4 = "750b458"
"""The commit that added a data directory of that format: tests/data/README.md."""
SINCE = "written since the upgrade"


def digests(data: Path) -> dict[str, str]:
    """Hash all files of a directory that hold persistent data."""
    return {
        str(path.relative_to(data)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(data.rglob("*"))
        if path.is_file() and path.name != "lock" and "run" not in path.parts
    }


def lines(revision: Revision, address: str, known: Path, *who: str | Path) -> list[str]:
    """Return what a client of a version reads in the lobby, from the beginning."""
    args = (*who, "--json", "--since", "0", "--known-servers", known, "--accept-new")
    with revision.start("tail", address, "lobby", *args) as tail:
        assert tail.stdout is not None
        texts: list[str] = []
        for line in tail.stdout:
            if "body" in (found := json.loads(line)):
                texts.append(found["body"])
            if len(texts) == len(LOBBY):
                break
        tail.terminate()
        assert texts, tail.communicate()[1]
    return texts


def refuses(revision: Revision, data: Path) -> None:
    """Check that the version refuses to start with newer data, and changes nothing in it."""
    before = digests(data)
    done = revision.run("serve", "--data", data, "--bind", "127.0.0.1:0")
    assert done.returncode not in (0, None), done.stdout
    assert f"format {FORMAT_VERSION}" in done.stderr, done.stderr
    assert digests(data) == before


def exported(data: Path) -> list[str]:
    done = run_relay("data", "export", "--room", "lobby", "--data", data)
    assert done.returncode == 0, done.stderr
    return [json.loads(line)["body"] for line in done.stdout.splitlines()]


def test_from_0_1_0_with_a_copy(tmp_path: Path) -> None:
    old = Revision(VERSION_0_1_0, tmp_path)
    data = unpacked(1, tmp_path).rename(tmp_path / "relay")
    texts = [text for _, text in LOBBY]
    with old.serving(data) as address:
        assert lines(old, address, tmp_path / "known", "--name", "zed") == texts
    before = digests(data)
    copy, after = tmp_path / "relay-0.1.0", tmp_path / "relay-after"
    shutil.copytree(data, copy)  # cp -a
    with Relay(data, workers=2) as relay, BlockingClient(relay.address, name="ann") as ann:
        ann.send("lobby", SINCE)
    assert formats(data) == {FORMAT_VERSION}
    refuses(old, data)
    data.rename(after)
    copy.rename(data)
    assert digests(data) == before
    with old.serving(data) as address:
        assert lines(old, address, tmp_path / "known", "--name", "zed") == texts
    assert exported(after) == [*texts, SINCE]
    # And upgrade again later.
    with Relay(data, workers=2) as relay, BlockingClient(relay.address, name="ann") as ann:
        assert ann.send("lobby", "once more").seq > len(texts)


def test_with_a_backup_of_the_version_before(tmp_path: Path) -> None:
    old = Revision(OF_FORMAT_4, tmp_path)
    data = unpacked(4, tmp_path).rename(tmp_path / "relay")
    texts = [text for _, text in LOBBY]
    [directory] = (tmp_path / "keys").iterdir()
    keys = directory / "alice.key"
    backup, after = tmp_path / "before-upgrade", tmp_path / "relay-after"
    with old.serving(data) as address:
        assert lines(old, address, tmp_path / "known", "--name", "alice", "--key", keys) == texts
        made = old.run("backup", "create", backup, "--data", data)
        assert made.returncode == 0, made.stderr
    with (
        Relay(data, workers=2) as relay,
        BlockingClient(relay.address, name="alice", key=DeviceKey.load(keys)) as alice,
    ):
        alice.send("lobby", SINCE)
    assert formats(data) == {FORMAT_VERSION}
    refuses(old, data)
    data.rename(after)
    restored = old.run("backup", "restore", backup, "--data", data)
    assert restored.returncode == 0, restored.stderr
    with old.serving(data) as address:
        assert lines(old, address, tmp_path / "known", "--name", "alice", "--key", keys) == texts
    assert exported(after) == [*texts, SINCE]
