"""No secret is shown: every type with a secret is found, created, and converted to text in every
way.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import inspect
import logging
import pkgutil
import pprint
import re
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest

import relay
from relay import codec
from relay.bus.messages import Claim
from relay.bus.packing import pack as pack_message
from relay.bus.packing import unpack as unpack_message
from relay.client.aio import Client
from relay.client.blocking import BlockingClient
from relay.client.identity import Identity
from relay.secret import Secret
from relay.server.agent import protocol as agent
from relay.wire.envelopes import Hello, Register
from relay.wire.key_schedule import login_binding
from relay.wire.packing import pack, unpack_client

MARK = b"\x07MARKED-SECRET\x07!"
assert len(MARK) == 16
SECRET_NAME = re.compile(r"secret|private|exporter|binding|password|psk|seed|token$")
ALSO = {("SessionSecrets", "client"), ("SessionSecrets", "server"), ("Frame", "payload")}
CONVERTS = {Hello, Register, Claim, Identity}
"""These take plain bytes, from a peer, a file or the key schedule; the others take Secret."""
NO_SECRETS = {("SecretWrapped", "ciphertext"), ("Established", "secrets")}


def classes() -> Iterator[type]:
    """Return every class that the package defines."""
    for module in pkgutil.walk_packages(relay.__path__, "relay."):
        if module.name.endswith("__main__"):
            continue
        loaded = importlib.import_module(module.name)
        for _, found in inspect.getmembers(loaded, inspect.isclass):
            if found.__module__ == module.name:
                yield found


def fields_of(kind: type) -> Mapping[str, Any]:
    """Return the fields of a NamedTuple or a dataclass, with their types."""
    if dataclasses.is_dataclass(kind):
        return {field.name: field.type for field in dataclasses.fields(kind)}
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints: dict[str, Any] = {}
        for base in reversed(kind.__mro__):
            hints |= getattr(base, "__annotations__", {})
        return {name: hints.get(name, object) for name in kind._fields}
    return {}


def is_secret(kind: type, name: str) -> bool:
    if (kind.__name__, name) in NO_SECRETS:
        return False
    return SECRET_NAME.search(name) is not None or (kind.__name__, name) in ALSO


HOLDERS = {
    kind: names
    for kind in classes()
    if (names := [name for name in fields_of(kind) if is_secret(kind, name)])
}


def plausible(hint: Any) -> Any:  # noqa: ANN401
    """Return a value for a field that is not a secret."""
    text = str(hint)
    if "None" in text:
        return None
    for part, value in (("Mapping", {}), ("bool", True), ("int", 1), ("float", 1.0),
                        ("bytes", b"p" * 32), ("str", "x"), ("Callable", print)):  # fmt: skip
        if part in text:
            return value
    return types.SimpleNamespace()


def made(kind: type) -> object:
    """Create an instance with the marked secret in every secret field."""
    held = MARK if kind in CONVERTS else Secret(MARK)
    return kind(
        **{
            name: held if name in HOLDERS[kind] else plausible(hint)
            for name, hint in fields_of(kind).items()
        }
    )


def ways(value: Any) -> Iterator[str]:  # noqa: ANN401
    """Return every way in which a value becomes text by accident."""
    yield from (repr(value), str(value), format(value), f"{value}", f"{value!r}", ascii(value))
    yield "%s %r" % (str(value), value)  # noqa: UP031
    yield "{} {!r}".format(value, value)  # noqa: UP032
    yield pprint.pformat(value)
    yield repr([value]) + repr({"k": value}) + repr((value,))
    for args in ((value,), ({"k": value},)):
        record = logging.LogRecord("x", logging.INFO, "x", 1, "%s %r", (args[0], args[0]), None)
        yield record.getMessage()
    yield str(ValueError(value)) + repr(ValueError(value))
    yield repr(copy.copy(value)) + repr(copy.deepcopy(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield repr(dataclasses.asdict(value)) + repr(dataclasses.astuple(value))
        yield repr(dataclasses.replace(value))
    if isinstance(value, tuple):
        yield repr(tuple(value)) + repr(list(value)) + repr(value[:])
        yield repr(value._asdict()) + repr(value._replace())  # type: ignore[attr-defined]
    if hasattr(value, "__dict__"):
        yield repr(vars(value))


def hidden(text: str) -> bool:
    """Return whether no spelling of the secret is in a text."""
    return not any(
        spelling in text
        for spelling in ("MARKED", MARK.hex(), MARK.hex(" "), str(list(MARK))[1:-1])
    )


def test_the_types_are_found() -> None:
    """The search finds the types known to hold a secret."""
    found = {kind.__name__ for kind in HOLDERS}
    assert {"Hello", "Claim", "Identity", "SessionSecrets", "Register", "Frame"} <= found


@pytest.mark.parametrize("kind", HOLDERS, ids=lambda kind: kind.__name__)
def test_no_secret_is_shown(kind: type) -> None:
    value = made(kind)
    for name in HOLDERS[kind]:
        assert bytes(getattr(value, name)) == MARK
    for text in ways(value):
        assert hidden(text), text


def test_what_arrives_is_hidden_too() -> None:
    """Instances that were unpacked instead of constructed."""
    hello = Hello("alice", MARK, "", "")
    (arrived,) = unpack_client(pack(hello))
    claim = unpack_message(pack_message(Claim(1, "alice", MARK, True, 1, b""))[4:])
    (frame,) = agent.FrameReader().feed(agent.pack(agent.Kind.SECRET, 1, MARK))
    assert arrived == hello
    for value in (arrived, claim, frame, login_binding(MARK * 2, b"spki")):
        for text in ways(value):
            assert hidden(text)
    assert codec.pack(tuple(hello)) == codec.pack(("alice", MARK, "", "", b"", b""))


def test_a_secret_is_bytes_otherwise() -> None:
    secret = Secret(MARK)
    assert secret == MARK
    assert hash(secret) == hash(MARK)
    assert secret.hex() == MARK.hex()
    assert type(copy.deepcopy(secret)) is Secret
    for text in ways(secret):
        assert hidden(text)


@pytest.mark.parametrize("kind", [Client, BlockingClient])
def test_clients(kind: Callable[..., Any]) -> None:
    """A client, its parts, and its attributes."""
    client = kind("relay://127.0.0.1:1", identity=Identity(MARK))
    seen = [client, client.identity, client._state, client._state.options, vars(client)]
    for value in seen:
        assert hidden(repr(value))
        assert hidden(str(value))
    assert client.identity.secret == MARK


def test_other_classes_do_not_show_what_they_hold() -> None:
    """A class with a secret in an attribute has no repr of its own."""
    for kind in classes():
        names = {*getattr(kind, "__slots__", ()), *getattr(kind, "__annotations__", {})}
        if kind not in HOLDERS and any(SECRET_NAME.search(name) for name in names):
            shows = any("__repr__" in vars(base) for base in kind.__mro__[:-1])
            assert not shows or kind.__name__ in ("Established", "DeviceKey"), kind
