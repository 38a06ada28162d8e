"""Manual pages and shell completion are up to date, and accepted by man, bash and fish."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from relay.cli.manual import files
from tests.support.cluster import ROOT

SHARE = ROOT / "deploy" / "share"


def test_the_files_are_up_to_date() -> None:
    there = {
        str(path.relative_to(SHARE)): path.read_text(encoding="utf-8")
        for path in SHARE.rglob("*")
        if path.is_file()
    }
    assert there == files(), "run: .venv/bin/python -m relay.cli.manual deploy/share"


@pytest.mark.skipif(shutil.which("groff") is None, reason="no groff here")
def test_the_pages_are_legal() -> None:
    for page in sorted((SHARE / "man" / "man1").iterdir()):
        ended = subprocess.run(
            ["groff", "-man", "-Tascii", "-ww", str(page)],
            capture_output=True,
            text=True,
            check=True,
        )
        assert ended.stderr == "", page.name
        assert page.stem.upper() in ended.stdout


def test_bash_completes(tmp_path: Path) -> None:
    """With the real program, found as ``relay``."""
    program = tmp_path / "relay"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m relay.cli "$@"\n')
    program.chmod(0o755)
    script = (
        f". {SHARE}/bash-completion/completions/relay\n"
        "COMP_WORDS=(relay ctl re) COMP_CWORD=2\n_relay_completion relay\n"
        'printf "%s\\n" "${COMPREPLY[@]}"\n'
    )
    ended = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)},
    )
    assert ended.stdout.split() == ["reindex", "reload", "restart"]


@pytest.mark.skipif(shutil.which("fish") is None, reason="no fish here")
def test_fish_completes(tmp_path: Path) -> None:
    """Likewise, with a description of each command."""
    program = tmp_path / "relay"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m relay.cli "$@"\n')
    program.chmod(0o755)
    script = f"source {SHARE}/fish/vendor_completions.d/relay.fish; complete -C 'relay ctl re'"
    ended = subprocess.run(
        ["fish", "--no-config", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={
            **os.environ,
            "HOME": str(tmp_path),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
        },
    )
    found = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [name for name, _ in found] == ["reindex", "reload", "restart"]
    assert all(meaning for _, meaning in found)
