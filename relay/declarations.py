"""The declarations of the settings, one record each: for reading, checking, describing."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Callable
from functools import cache, partial
from typing import Any, Final, Literal, NamedTuple

import msgspec

from relay.environment import variable_name
from relay.errors import UsageError
from relay.listen_address import AUTO, OFF, parse_listen_address
from relay.paths import expanded
from relay.settings import LIVE, Settings

SHOWN_CHARS_MAX: Final = 60
"""How much of a wrong value is shown: an error is one line."""
PLATFORM_DEFAULTS: Final = {"store.data": "the user's data directory"}
"""Defaults that differ from user to user, in words."""
_WRONG: Final = (msgspec.ValidationError, UnicodeEncodeError)
_TRUE: Final = ("true", "yes", "on", "1", 1)
_FALSE: Final = ("false", "no", "off", "0", 0)


class Declaration(NamedTuple):
    """The declaration of one setting."""

    section: str
    key: str
    type: Any
    field: msgspec.structs.FieldInfo
    why: str

    @property
    def path(self) -> str:
        """Dotted, as in the file."""
        return f"{self.section}.{self.key}"

    @property
    def default(self) -> object:
        """The default, computed only now: some need a home directory, which may not exist.

        Raises:
            UsageError: there is no default here.
        """
        made = self.field.default_factory
        return self.field.default if made is msgspec.NODEFAULT else made()

    @property
    def flag(self) -> str:
        """The option of ``relay serve`` that sets it, if any."""
        if self.path == "control.bind":
            return "--control"
        named = f"log-{self.key}" if self.section == "log" else self.key.removesuffix("_s")
        return "--" + named.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable_name(self.section, self.key)

    @property
    def live(self) -> bool:
        """True if a reload changes it, without a restart."""
        return self.section in ("limits", "retention") or self.path in LIVE

    @property
    def expected(self) -> str:
        """The expected value, in words; msgspec's own words use Python's types."""
        plain, meta = typing.get_args(self.type)
        if typing.get_origin(plain) is Literal:
            return "one of " + ", ".join(typing.get_args(plain))
        if plain is bool:
            return "true or false"
        if plain in (int, float):
            number = "a whole number" if plain is int else "a number"
            return f"{number} from {meta.ge} to {meta.le}"
        if self.rules.get("path"):
            return "a path"
        if self.rules.get("user"):
            return "the name or number of a user"
        return "a list of one or more texts" if self._is_list else "text"

    def convert(self, value: object, *, typed: bool) -> object:
        """Convert a value from any source to the setting's type.

        Args:
            value: as given.
            typed: the source has types of its own, which must be right: text is no number there.
                The environment and the command line only have text.

        Raises:
            UsageError: it is wrong; the message states what was expected, in a line for each wrong
                item of a list.
        """
        if rule := self.rules.get("path"):
            return _path(value, empty=rule == "may be empty")
        try:
            converted = self._converted(value, from_text=not typed)
        except _WRONG:
            meant = self._meant(value)
            advice = "" if meant is None else f": write {shown(meant)}"
            raise UsageError(f"expected {self.expected}{advice}, not {shown(value)}") from None
        if rule := self.rules.get("address"):
            _check_each(partial(_check_address, rule=rule), converted)
        if "networks" in self.rules:
            _check_each(_check_network, converted)
        return converted

    def _converted(self, value: object, *, from_text: bool) -> object:
        """Raises what ``_WRONG`` names."""
        is_text = from_text and isinstance(value, str)
        if self._is_list and is_text:
            value = [part.strip() for part in typing.cast("str", value).split(",") if part.strip()]
        return msgspec.convert(value, self.type, strict=not is_text)

    def _meant(self, value: object) -> object:
        """Return the right value if only the type of the given one is wrong, or None."""
        plain, _ = typing.get_args(self.type)
        if plain is bool:
            word = value.lower() if isinstance(value, str) else value
            return True if word in _TRUE else False if word in _FALSE else None
        if plain is int and isinstance(value, float) and value.is_integer():
            value = int(value)
        try:
            return self._converted(value, from_text=True)
        except _WRONG:
            return None

    @property
    def may_be_blank(self) -> bool:
        """True if an empty variable has a meaning other than "not given"."""
        return self.rules.get("path") == "may be empty"

    @property
    def rules(self) -> dict[str, str]:
        """The requirements of its declaration beyond its type."""
        _, meta = typing.get_args(self.type)
        return meta.extra or {}

    @property
    def _is_list(self) -> bool:
        plain = getattr(self.type, "__origin__", self.type)  # of Annotated[...]
        return isinstance(plain, types.GenericAlias) and typing.get_origin(plain) is tuple


@cache  # evaluating the annotations is most of what reading all sources costs
def declarations() -> tuple[Declaration, ...]:
    """Return every setting, in the order of the declarations."""
    found = []
    for section, kind in typing.get_type_hints(Settings).items():
        for info in msgspec.structs.fields(kind):
            why = info.type.__metadata__[0].description
            found.append(Declaration(section, info.name, info.type, info, why))
    return tuple(found)


def as_toml(value: object) -> str:
    """Return a setting's value in the notation of the file."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


def shown(value: object) -> str:
    """Return a wrong value for an error: one line, truncated."""
    try:
        given = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # Python formats no number of more than 4,300 digits
        return "what is given"
    return given if len(given) <= SHOWN_CHARS_MAX else given[:SHOWN_CHARS_MAX] + "..."


def _check_each(check: Callable[[str], None], value: object) -> None:
    mistakes = []
    for text in value if isinstance(value, tuple) else (value,):
        try:
            check(text)
        except UsageError as error:
            mistakes.append(str(error))
    if mistakes:
        raise UsageError("\n".join(mistakes))


def _check_address(text: str, rule: str) -> None:
    if rule == "or word" and text in (AUTO, OFF):
        return
    try:
        parse_listen_address(text, unix=rule in ("or word", "or unix"), words=rule == "or word")
    except UsageError as error:
        raise UsageError(f"{error}, not {shown(text)}") from None


def _check_network(text: str) -> None:
    from ipaddress import ip_network  # rarely needed

    if text not in ("unix", "none"):
        try:
            ip_network(text)
        except ValueError:
            expected = "expected networks without bits of a host, as 10.0.0.0/8, unix or none"
            raise UsageError(f"{expected}, not {shown(text)}") from None


def _path(value: object, *, empty: bool) -> str:
    if isinstance(value, str) and empty and not value.strip():
        return ""
    if not isinstance(value, str):
        raise UsageError(f"expected text, not {shown(value)}")
    return str(expanded(value))
