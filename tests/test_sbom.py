"""The bill of materials in the wheel has the locked run-time dependencies."""

from __future__ import annotations

import json
import re

from tests.support.cluster import ROOT


def test_it_is_what_is_locked() -> None:
    lock = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    locked = set(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock, re.MULTILINE))
    sbom = json.loads((ROOT / "deploy" / "sbom.cdx.json").read_bytes())
    assert sbom["bomFormat"] == "CycloneDX"
    assert sbom["metadata"]["component"]["name"] == "relay-chat"
    found = {(part["name"], part["version"]) for part in sbom["components"]}
    assert found == locked, "run: make lock"
    for part in sbom["components"]:
        assert part["purl"].startswith(f"pkg:pypi/{part['name']}@{part['version']}")
