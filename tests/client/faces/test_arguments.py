"""Wrong arguments raise TypeError or ValueError at once, with both clients; nothing is sent."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from relay.chat.entries import Cursor
from relay.client.address import Address
from relay.client.aio import Client
from relay.client.blocking import BlockingClient
from relay.client.errors import ConnectFailed, MessageTooLong, NotConnected
from relay.client.events import State
from relay.client.identity import Identity
from relay.client.refusals import NameInvalid
from relay.client.trust.policy import KeyPolicy
from relay.errors import UsageError
from tests.client.faces.adapters import Face
from tests.client.faces.calls import CALLS

Connect = Callable[..., Face]
SURROGATE = "\ud800"
EPOCH = b"e" * 8


def call(face: Face, method: str, *args: object, **options: object) -> Any:  # noqa: ANN401
    """Call a method of the client itself, with any arguments."""
    client: Any = face.client
    result = getattr(client, method)(*args, **options)
    if inspect.isawaitable(result):
        return face._run(result)  # type: ignore[attr-defined]
    if inspect.isasyncgen(result):
        return face._run(anext(result))  # type: ignore[attr-defined]
    if inspect.isgenerator(result):
        return next(result)
    return result


BAD_CALLS: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    *(("send", ("bad", body), {}, TypeError, "body must be")
      for body in ({"a": 1}, None, 1, ["x"], object())),
    *(("post", ("bad", body), {}, TypeError, "body must be") for body in ({"a": 1}, None)),
    ("send", ("bad", SURROGATE), {}, ValueError, "body has half"),
    ("send", ("bad", "x" * 32_769), {}, MessageTooLong, "32769"),
    *((method, (log, *rest), {}, TypeError, "name of a room")
      for method, rest in [("send", ("x",)), ("post", ("x",)), ("join", ()), ("leave", ()),
                           ("who", ()), ("history", ())]
      for log in (None, b"bytes", 7, ["lobby"])),
    *((method, (log, *rest), {}, NameInvalid, "NAME_INVALID")
      for method, rest in [("send", ("x",)), ("join", ()), ("leave", ()), ("who", ())]
      for log in ("", "a b", SURROGATE, "x" * 100_000)),
    *(("send", ("bad", "x"), {"content_type": kind}, error, "content.type")
      for kind, error in [(None, TypeError), (b"text", TypeError), (SURROGATE, ValueError),
                          ("x" * 65, MessageTooLong)]),
    *(("join", ("bad",), {"since": since}, error, "since")
      for since, error in [(-1, ValueError), (2**63, ValueError), ("0", TypeError),
                           (1.0, TypeError), (True, TypeError)]),
    *(("join", ("bad",), {"last": last}, error, "last")
      for last, error in [(-1, ValueError), (10_001, ValueError), ("5", TypeError),
                          (None, TypeError), (2.5, TypeError)]),
    *(("join", ("bad",), {"cursor": cursor}, error, "cursor")
      for cursor, error in [(7, TypeError), ("x", TypeError), (Cursor(b"short", 1), ValueError),
                            (Cursor(EPOCH, -1), ValueError), (("e" * 8, 1), TypeError),
                            (Cursor(EPOCH, "1"), TypeError)]),  # type: ignore[arg-type]
    *((method, ("bad", "x"), {"reply_to": cursor}, error, "reply_to")
      for method in ("send", "post")
      for cursor, error in [("x", TypeError), (7, TypeError), (Cursor(b"short", 1), ValueError)]),
    *((method, ("bad", "x"), {"room_identity": identity}, error, "room_identity")
      for method in ("send", "post")
      for identity, error in [("e" * 8, TypeError), (None, TypeError), (b"short", ValueError),
                              (Cursor(EPOCH, 1), TypeError), (bytes(9), ValueError)]),
    *((method, (entry, *rest), {}, TypeError, "message must be a Message")
      for method, rest in [("edit", ("x",)), ("redact", ()), ("react", ("x",)), ("mark_read", ())]
      for entry in (None, "x", Cursor(EPOCH, 1))),
    ("join", ("bad",), {"since": 0, "cursor": Cursor(EPOCH, 1)}, ValueError, "only one"),
    ("join", ("bad",), {"last": 1, "since": 0}, ValueError, "only one"),
    *(("history", ("ok-room",), {name: value}, error, name)
      for name in ("before", "after", "count")
      for value, error in [(-1, ValueError), ("1", TypeError), (0.5, TypeError),
                           (2**64, ValueError)]),
    ("history", ("ok-room",), {"count": 0}, ValueError, "count"),
    ("history", ("ok-room",), {"before": 1, "after": 1}, ValueError, "only one"),
]  # fmt: skip


def test_calls(connect: Connect) -> None:
    """Every argument of every method; the connection is not affected."""
    face = connect("arguments-a")
    call(face, "join", "ok-room")
    for method, args, options, error, text in BAD_CALLS:
        with pytest.raises(error, match=text):
            call(face, method, *args, **options)
    assert face.client.unacknowledged == 0
    assert face.client.statistics["logins"] == 1
    for good in ("text", b"bytes", bytearray(b"array"), memoryview(b"view")):
        assert call(face, "send", "ok-room", good).seq
    assert face.client.state is State.ONLINE
    assert list(face.client.cursors) == ["ok-room"]


BAD_CHANGES: list[tuple[tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    ((None,), {}, TypeError, "action"), ((["ban"],), {}, TypeError, "action"),
    (("shut",), {}, ValueError, "action"),
    (("ban", 7), {}, TypeError, "person"),
    (("ban", "bob"), {"seconds": "60"}, TypeError, "seconds"),
    (("ban", "bob"), {"seconds": None}, TypeError, "seconds"),
    (("ban", "bob"), {"seconds": float("inf")}, ValueError, "seconds"),
    (("keep",), {"keep": 7}, TypeError, "keep"),
    (("keep",), {"keep": {1, 2, 3}}, TypeError, "keep"),
    (("role", "bob"), {"role": None}, TypeError, "role"),
    (("role", "bob"), {"role": "invited"}, ValueError, "role"),
    (("kind",), {"kind": ["public"]}, TypeError, "kind"),
    (("kind",), {"kind": "private", "listed": "no"}, TypeError, "listed"),
    (("redact",), {"seq": "1"}, TypeError, "seq"),
]  # fmt: skip
BAD_ADMINISTRATION: list[tuple[str, tuple[Any, ...], dict[str, Any], type[Exception], str]] = [
    *((method, (name, *rest), {}, TypeError, "name must be a str")
      for method, rest in [("block", ()), ("unblock", ()), ("last_seen", ()), ("user", ()),
                           ("change_user", ("enable",))]
      for name in (None, b"bob", 7, ["bob"])),
    *((method, (name,), {}, NameInvalid, "NAME_INVALID")
      for method in ("block", "unblock", "last_seen", "user") for name in ("", " ", SURROGATE)),
    *(("change_user", ("bob", change), {}, error, "change")
      for change, error in [(None, TypeError), (["disable"], TypeError), (b"add", TypeError),
                            ("ad", ValueError), ("", ValueError)]),
    *(("invite", (), {"days": days}, error, "days")
      for days, error in [(None, TypeError), ("7", TypeError), (True, TypeError), (0, ValueError),
                          (-1, ValueError), (float("nan"), ValueError), (1e9, ValueError)]),
    *(("revoke_invitation", (text,), {}, error, "invitation")
      for text, error in [(None, TypeError), (b"x" * 52, TypeError), ("", ValueError),
                          ("x" * 51, ValueError), ("é" * 52, ValueError)]),
    *(("add_device", (key,), {}, TypeError, "key must be a DeviceKey")
      for key in (None, "x" * 52, b"k" * 32)),
    *(("set_preferences", (), {name: value}, error, name)
      for name, value, error in [
          ("writers", "friends", ValueError), ("writers", ["all"], TypeError),
          ("seen_by", 7, TypeError), ("keep", 7, TypeError), ("keep", "123", TypeError),
          ("keep", (1, 2), ValueError), ("keep", (1, 2, "3"), TypeError)]),
    *(("create_room", ("bad", kind), {}, error, "kind")
      for kind, error in [(None, TypeError), (["public"], TypeError), ("open", ValueError)]),
    *(("change_room", ("bad", *args), options, error, text)
      for args, options, error, text in BAD_CHANGES),
    *((method, args, {name: value}, TypeError, f"{name} must be a bool")
      for method, args, name in [
          ("invite", (), "operator"), ("create_room", ("bad",), "listed"), ("rooms", (), "mine"),
          ("rooms", (), "whole"), ("delete_account", (), "erase_messages")]
      for value in ("no", 0, 1, None)),
    *((method, (), {"rooms": rooms}, TypeError, "rooms|room")
      for method in ("export", "delete_account")
      for rooms in (None, 7, "lobby", [7])),
]  # fmt: skip


def test_administration(connect: Connect) -> None:
    """Of accounts, devices and rooms, None as a name included."""
    face = connect("arguments-f")
    for method, args, options, error, text in BAD_ADMINISTRATION:
        with pytest.raises(error, match=text) as told:
            call(face, method, *args, **options)
        assert "object" not in str(told.value), "the interpreter's wording, not the library's"
    with pytest.raises(ValueError, match="action is 'x") as told:
        call(face, "change_room", "bad", "x" * 100_000)
    assert len(str(told.value)) < 500
    assert face.client.statistics["logins"] == 1
    assert call(face, "send", "ok-room", "still there").seq


def test_every_method_that_waits_takes_a_timeout(room: str) -> None:
    """The same name for all, in seconds, with both clients."""
    for kind in (Client, BlockingClient):
        taken = {
            name
            for name, method in inspect.getmembers(kind, callable)
            if not name.startswith("_") and "timeout" in inspect.signature(method).parameters
        }
        waits = {
            name
            for name, method in inspect.getmembers(Client, inspect.isfunction)
            if not name.startswith("_")
            and (inspect.iscoroutinefunction(method) or inspect.isasyncgenfunction(method))
        }
        assert taken == waits == set(CALLS)


@pytest.mark.parametrize("value", [-1, "1", float("nan"), True, [1]])
def test_times(connect: Connect, value: object) -> None:
    """In every method that takes one."""
    face = connect("arguments-b")
    for method, args in CALLS.items():
        with pytest.raises((TypeError, ValueError), match="timeout"):
            call(face, method, *args, timeout=value)
    assert face.client.state is State.ONLINE


def test_before_connect(face: Connect) -> None:
    """An error at once, instead of waiting for ever."""
    one = face("relay://127.0.0.1:1", "arguments-c")
    for method, args in CALLS.items():
        if method in ("connect", "close"):
            continue
        with pytest.raises(NotConnected, match="not connected: call connect"):
            call(one, method, *args)
    one.close()


def test_after_a_connect_that_failed(face: Connect) -> None:
    """Each call raises the reason; none waits, and none complains that the server is not known."""
    one = face("relay://127.0.0.1:1", "arguments-e")
    with pytest.raises(ConnectFailed):
        one.connect()
    for method, args in CALLS.items():
        if method in ("connect", "close", "pump", "flush"):
            continue
        with pytest.raises(ConnectFailed, match="cannot connect"):  # noqa: PT012
            while True:  # events that report it come first
                call(one, method, *args)
    one.close()


@pytest.mark.parametrize("kind", [Client, BlockingClient])
@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"name": 7}, TypeError),
        ({"name": ""}, ValueError),
        ({"name": "x" * 33}, ValueError),
        ({"name": "é" * 20}, ValueError),
        ({"name": SURROGATE}, ValueError),
        ({"display": None}, TypeError),
        ({"display": "x" * 65}, ValueError),
        ({"display": SURROGATE}, ValueError),
        ({"agent": b"x"}, TypeError),
        ({"agent": "x" * 65}, ValueError),
        ({"window": 0}, ValueError),
        ({"window": "8"}, TypeError),
        ({"retry_timeout_s": -1}, ValueError),
        ({"retry_timeout_s": "1"}, TypeError),
        ({"answer_timeout_s": -1}, ValueError),
        ({"answer_timeout_s": "1"}, TypeError),
        ({"identity": "me"}, TypeError),
        ({"key_policy": "none"}, TypeError),
        ({"reconnect": "no"}, TypeError),
        ({"enrol": 1}, TypeError),
        ({"register": "no"}, TypeError),
    ],
)
def test_constructor(
    kind: type[Client] | type[BlockingClient], options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error, match=next(iter(options))):
        kind("relay://127.0.0.1:1", **options)


@pytest.mark.parametrize("kind", [Client, BlockingClient])
def test_address(kind: type[Client] | type[BlockingClient]) -> None:
    with pytest.raises(TypeError, match="address must be"):
        kind(7)  # type: ignore[arg-type]
    for address in (Address("127.0.0.1", 99_999), Address("a b"), Address("h", "x")):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match="not an address of a relay"):
            kind(address)
    assert kind(Address("::1", 7475)).address == Address("::1", 7475)


@pytest.mark.parametrize(
    "options",
    [{"known": "file"}, {"ask": "no"}, {"keys": "directory"}],
    ids=lambda o: next(iter(o)),
)
def test_key_policy(options: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=f"{next(iter(options))} must be"):
        KeyPolicy(**options)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (("s" * 16, {}), TypeError),
        ((b"s" * 16, b"p" * 8), TypeError),
        ((b"s" * 15, {}), ValueError),
        ((b"s" * 16, {"log": 0}), ValueError),
        ((b"s" * 16, {"log": 1}), ValueError),
        ((b"s" * 16, {"log": 1}, b"short"), ValueError),
        ((b"s" * 16, {"log": "1"}, bytes(32)), TypeError),
        ((b"s" * 16, {7: 1}, bytes(32)), TypeError),
        ((b"s" * 16, [("log", 1)]), TypeError),
    ],
)
def test_identity(fields: tuple[Any, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        Identity(*fields)


@pytest.mark.parametrize("kind", [Client, BlockingClient])
def test_an_identity_before_the_first_login(
    kind: type[Client] | type[BlockingClient],
) -> None:
    """A program may save it at any time: the identity that it was given does not change."""
    given = Identity(b"s" * 16, {"room": 7}, b"a" * 32)
    assert kind("relay://127.0.0.1:1", name="ann", identity=given).identity == given
    new = kind("relay://127.0.0.1:1", name="ann").identity
    assert (new.counters, new.account) == ({}, b"")
