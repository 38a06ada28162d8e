"""The grammar of names."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import relay
from relay import limits
from relay.chat import names

LEGAL = ["al", "alice", "a1", "1a", "a-b_c", "x" * 32, "00", "a__"]
ILLEGAL = [
    "", "a", "x" * 33, "Alice", "-a", "_a", "a b", "a.b", "a\n", "alice\n", "\nalice", "a\x00b",
    "älice", "аdmin", "ⓐdmin", "ﬁx", "adm\u0131n", "\u212aelvin", "a\u200db", "a\u202eb",
    "a\u3164", "a/b", "../ab", "@alice", "#room", "alice ", " alice", "a\u0301b", "１２",
]  # fmt: skip


@pytest.mark.parametrize("name", LEGAL)
def test_legal(name: str) -> None:
    assert names.is_handle(name)
    assert names.is_room(name)
    assert names.is_inbox("@" + name)
    assert not names.is_inbox(name)
    assert not names.is_room("@" + name)


@pytest.mark.parametrize("name", ILLEGAL)
def test_illegal(name: str) -> None:
    assert not names.is_handle(name)
    assert not names.is_room(name)
    assert not names.is_inbox("@" + name)


@given(st.text())
def test_what_is_legal_is_plain_ascii(name: str) -> None:
    if names.is_handle(name):
        assert name.isascii()
        assert name == name.lower() == name.strip()
        assert 2 <= len(name) <= limits.NAME_CHARS_MAX


def test_input_is_folded_in_ascii_only() -> None:
    assert names.normal("AliCE-1_x") == "alice-1_x"
    assert names.normal("@Bob") == "@bob"
    # str.lower would make a legal name of the Kelvin sign.
    assert names.normal("\u212aelvin") == "\u212aelvin"


@given(st.text())
def test_folding_twice_is_folding_once(name: str) -> None:
    assert names.normal(names.normal(name)) == names.normal(name)


@pytest.mark.parametrize("name", ["server", "system", "admin", "relay", "all", "everyone"])
def test_handles_that_look_official_are_reserved(name: str) -> None:
    assert names.is_reserved(name)
    assert names.is_handle(name)


@pytest.mark.parametrize(
    "name",
    [
        "adm1n", "admln", "adrnin", "admin-", "admin_", "a-d-m-i-n", "aclmin", "4dmin", "r00t",
        "root-", "ro0t_", "r-o-o-t", "moderator", "m0derator", "rnoderator", "moderat0r", "m0d",
        "0perator", "0perat0r", "ovvner", "re1ay", "reiay", "re-lay", "5erver", "serv3r", "s3rv3r",
        "sy5tem", "systern", "admlnlstrator", "every0ne", "a11", "a-11", "al1", "h3re", "5taff",
    ],
)  # fmt: skip
def test_handles_that_look_like_a_reserved_one_are_reserved(name: str) -> None:
    assert names.is_handle(name)
    assert names.is_reserved(name)


@pytest.mark.parametrize(
    "name",
    [
        "alice", "a1ice", "admin1", "admin2", "root0", "support", "security", "ali", "ali-",
        "root-x4k9", "roots", "roadmin", "andi", "heron",
        "model", "moderna", "relays", "bart", "brad", "clad", "ian", "lan", "allan", "al", "00",
    ],
)  # fmt: skip
def test_other_handles_are_not_reserved(name: str) -> None:
    assert not names.is_reserved(name)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("alice", ""), ("~bob", ""), ("a", "2 to 32"), ("Alice", "a-z"), ("@alice", "a-z"),
        ("~a", "2 to 32"), ("root", "reserved"), ("r00t", "reserved"), ("~root", "reserved"),
    ],
)  # fmt: skip
def test_why_a_name_cannot_be_had(name: str, why: str) -> None:
    assert why in names.person_error(name)
    assert bool(why) == bool(names.person_error(name))


def test_why_a_display_name_cannot_be_had() -> None:
    assert names.display_error("Alice") == names.display_error("x" * 64) == ""
    assert "at most 64" in names.display_error("x" * 65)
    assert "not allowed" in names.display_error("a\x1b")


@pytest.mark.parametrize(
    ("one", "other"),
    [("a1ice", "alice"), ("ian", "lan"), ("b0b", "bob"), ("corn", "com"), ("bob_", "b-ob")],
)
def test_look_alikes_have_one_skeleton(one: str, other: str) -> None:
    assert names.skeleton(one) == names.skeleton(other)


def test_a_skeleton_tells_names_apart() -> None:
    assert len({names.skeleton(name) for name in ("alice", "bob", "carol", "dave", "eve")}) == 5


@pytest.mark.parametrize(
    "text",
    ["", "Alice", "Ålice Müller", "李雷", "א", "a  b", "x" * 64, "🙂", "e\u0301", "ę\u0323\u0301",
     "e\u0301\u0302\u0303\u0304x\u0301", "שָׁלוֹם", "ที่นี่"],
)  # fmt: skip
def test_displays(text: str) -> None:
    assert names.is_display(text)


@pytest.mark.parametrize(
    "text",
    [
        "x" * 65, " x", "x ", "\tx", "a\nb", "a\x1b[2Jb", "a\x00", "a\x7f", "a\x9b", "a\u202eb",
        "a\u2066b", "a\u200bb", "a\u200db", "\ufeffa", "a\u00adb", "a\ue000", "a\U000e0041",
        "a\u2028b", "a\u2029b", "a\ud800", "a\u0378", "\u00a0x",
        "a\u3164", "\u115f", "\uffa0", "\u2800", "a\ufe0f", "a\U000e0100",
        "al\u034fice", "al\U00016fe4ice", "a\U00013441", "a\U00013442", "a\U0001d159",
        "\u0301e", "\u20dd", "e" + "\u0301" * 5, "e" + "\u0301\u20dd" * 3, "x" + "\u0301" * 63,
    ],
)  # fmt: skip
def test_displays_that_hide_something(text: str) -> None:
    assert not names.is_display(text)


def test_names_that_strangers_choose_are_not_kept() -> None:
    """All processes would grow: so many names, and no string that is interned for ever."""
    assert names.normal("Alice") is names.shared("alice")
    for number in range(3 * names.SHARED_MAX):
        names.normal(f"stranger-{number}")
        assert len(names._shared) <= names.SHARED_MAX
    package = Path(relay.__file__).parent
    calls = [
        f"{path.relative_to(package)}:{node.lineno}"
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute | ast.Name)
        and "intern" in (getattr(node, "attr", ""), getattr(node, "id", ""))
    ]
    assert not calls, "sys.intern keeps a string for ever in Python 3.12"
