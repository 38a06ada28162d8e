"""Invalid values of the setting that locates the passphrase."""

from __future__ import annotations

import pytest

from relay.errors import StartError, UsageError
from relay.server.keys.passphrase import PassphraseSource


@pytest.mark.parametrize("setting", ["fd:", "fd:x", "fd:-1", "fd:2", "fd:3.0"])
def test_a_descriptor_is_a_number_of_three_or_more(setting: str) -> None:
    with pytest.raises(UsageError, match="a number of 3 or more"):
        PassphraseSource(setting)


@pytest.mark.parametrize("setting", ["fd:100000", "fd:2147483647", f"fd:{2**31}", f"fd:{10**30}"])
def test_a_descriptor_that_nobody_handed_over(setting: str) -> None:
    with pytest.raises(StartError, match=rf"descriptor {setting.removeprefix('fd:')}: "):
        PassphraseSource(setting)
