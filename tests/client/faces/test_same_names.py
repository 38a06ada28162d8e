"""Both clients, and both rooms, have the same methods with the same arguments."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

from relay import BlockingClient, BlockingRoom, Client, Room

OWN = {"dial"}
"""Arguments of the blocking constructor alone: it opens its sockets by itself."""
PAIRS: list[tuple[type[Any], type[Any]]] = [(Client, BlockingClient), (Room, BlockingRoom)]


def plain(name: str) -> str:
    """Return a name without its asynchronous prefix."""
    name = {"__aenter__": "__enter__", "__aexit__": "__exit__"}.get(name, name)
    return {"__aiter__": "__iter__", "__anext__": "__next__"}.get(name, name)


def names(kind: type[Any]) -> dict[str, str]:
    """Return the public attributes of a class, by plain name."""
    special = ("__aenter__", "__aexit__", "__aiter__", "__anext__", "__init__",
               "__enter__", "__exit__", "__iter__", "__next__")  # fmt: skip
    return {plain(name): name for name in dir(kind) if not name.startswith("_") or name in special}


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_the_same_names_and_arguments(asynchronous: type[Any], blocking: type[Any]) -> None:
    """Names, arguments, their kinds, their order and their defaults."""
    ours, theirs = names(asynchronous), names(blocking)
    assert sorted(ours) == sorted(theirs)
    for name in ours:
        one, other = getattr(asynchronous, ours[name]), getattr(blocking, theirs[name])
        assert callable(one) == callable(other), name
        if callable(one):
            first = [
                parameter.replace(annotation="")
                for parameter in inspect.signature(one).parameters.values()
            ]
            second = [
                parameter.replace(annotation="")
                for parameter in inspect.signature(other).parameters.values()
                if parameter.name not in OWN
            ]
            if name != "__init__" or asynchronous is Client:  # programs do not construct rooms
                assert first == second, name


@pytest.mark.parametrize(("asynchronous", "blocking"), PAIRS)
def test_the_same_results(asynchronous: type[Any], blocking: type[Any]) -> None:
    """Calls return the same types, except for asynchronous ones."""
    for name, own in names(asynchronous).items():
        other = getattr(blocking, names(blocking)[name])
        if inspect.isfunction(other):
            ours = str(getattr(asynchronous, own).__annotations__.get("return"))
            theirs = str(other.__annotations__.get("return"))
            assert ours.replace("Async", "") == re.sub(r"Blocking(?=Post|Room)", "", theirs), name


@pytest.mark.parametrize("kind", [kind for pair in PAIRS for kind in pair])
def test_every_name_is_explained(kind: type[Any]) -> None:
    """With the unit of each time, and the exceptions of a call."""
    for name in dir(kind):
        member = getattr(kind, name)
        if name.startswith("_"):
            continue
        text = inspect.getdoc(member)
        assert text, f"{kind.__name__}.{name}"
        if callable(member) and "timeout" in inspect.signature(member).parameters:
            assert "seconds" in text or re.search(r"as the client's ``\w+`` does", text), name
