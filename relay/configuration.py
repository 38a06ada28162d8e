"""Reading the settings: from flags, the environment and a TOML file.

Precedence: flag > ``RELAY_SECTION__KEY`` > file > default. Two variables of other programs count as
defaults, because people expect it: ``WEB_CONCURRENCY`` (workers) and systemd's ``STATE_DIRECTORY``
(data). An empty variable counts as unset. Every mistake is a UsageError that names the source, the
key's path and the nearest valid key.
"""

from __future__ import annotations

import difflib
import json
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec

from relay.environment import near_miss, variable_name
from relay.errors import UsageError
from relay.paths import expanded
from relay.settings import Settings

SHOWN_CHARS_MAX: Final = 60
"""How much of a wrong value is shown: an error is one line."""


class Declaration(NamedTuple):
    """One setting as it was declared."""

    section: str
    key: str
    type: Any
    field: msgspec.structs.FieldInfo
    why: str

    @property
    def path(self) -> str:
        """As in the file, dotted."""
        return f"{self.section}.{self.key}"

    @property
    def default(self) -> object:
        """The default, found only now: that of some needs a home directory, which not all have.

        Raises:
            UsageError: there is no default here.
        """
        made = self.field.default_factory
        return self.field.default if made is msgspec.NODEFAULT else made()

    @property
    def flag(self) -> str:
        """The option of ``relay serve`` that sets it, if there is one."""
        named = f"log-{self.key}" if self.section == "log" else self.key.removesuffix("_s")
        return "--" + named.replace("_", "-")

    @property
    def variable(self) -> str:
        """The environment variable that sets it."""
        return variable_name(self.section, self.key)


class Loaded(NamedTuple):
    """Settings, and where each value came from (by dotted path)."""

    settings: Settings
    sources: dict[str, str]


def declarations() -> Iterator[Declaration]:
    """Yield every setting, in the order of the declarations."""
    for section, kind in typing.get_type_hints(Settings).items():
        hints = typing.get_type_hints(kind, include_extras=True)
        for info in msgspec.structs.fields(kind):
            annotated = hints[info.name]
            why = annotated.__metadata__[0].description
            yield Declaration(section, info.name, annotated, info, why)


def load(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None,
) -> Loaded:
    """Read all sources.

    ``flags`` maps dotted paths to values that were given; None means that it was not.

    Raises:
        UsageError: any source has a mistake.
    """
    declared = {d.path: d for d in declarations()}
    values: dict[str, object] = {}
    sources = dict.fromkeys(declared, "default")
    for layer in (
        _conventions(environment),
        _from_file(file, declared),
        _from_environment(environment, declared),
        _from_flags(flags, declared),
    ):
        for path, (value, source) in layer.items():
            values[path] = _convert(declared[path], value, source)
            sources[path] = source
    for path, declaration in declared.items():
        if path not in values:
            values[path] = declaration.default
    sections: dict[str, dict[str, object]] = {}
    for path, value in values.items():
        section, key = path.split(".")
        sections.setdefault(section, {})[key] = value
    kinds = typing.get_type_hints(Settings)
    made = {name: kinds[name](**section) for name, section in sections.items()}
    return Loaded(Settings(**made), sources)


def as_toml(value: object) -> str:
    """Return a setting's value as the file would have it."""
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)


_Layer = dict[str, tuple[object, str]]


def _conventions(environment: Mapping[str, str]) -> _Layer:
    layer: _Layer = {}
    if workers := environment.get("WEB_CONCURRENCY", "").strip():
        layer["server.workers"] = (workers, "WEB_CONCURRENCY")
    if data := environment.get("STATE_DIRECTORY", "").split(":")[0].strip():
        layer["store.data"] = (data, "STATE_DIRECTORY")
    return layer


def _from_file(file: Path | None, declared: Mapping[str, Declaration]) -> _Layer:
    if file is None:
        return {}
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file}: is not UTF-8 text") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # a number or a nesting too large is no TOML error
        raise UsageError(f"{file}: is not valid TOML: {error}") from None
    layer: _Layer = {}
    known_sections = {d.section for d in declared.values()}
    for section, table in document.items():
        if section not in known_sections or not isinstance(table, dict):
            raise UsageError(f"{file}: {section}: no such section{_nearest(section, declared)}")
        for key, value in table.items():
            path = f"{section}.{key}"
            if path not in declared:
                raise UsageError(f"{file}: {path}: no such setting{_nearest(path, declared)}")
            layer[path] = (value, str(file))
    return layer


def _from_environment(
    environment: Mapping[str, str], declared: Mapping[str, Declaration]
) -> _Layer:
    by_variable = {d.variable: d for d in declared.values()}
    layer: _Layer = {}
    for variable, text in sorted(environment.items()):
        declaration = by_variable.get(variable)
        if declaration is None:
            named = ((d.section, d.key) for d in declared.values())
            if (meant := near_miss(variable, named)) is not None:
                hint = f"; did you mean {meant}?" if meant else ""
                raise UsageError(f"environment: {variable}: no such setting{hint}")
        elif text.strip() or _path_rule(declaration) == "may be empty":
            layer[declaration.path] = (text, variable)
    return layer


def _from_flags(flags: Mapping[str, object], declared: Mapping[str, Declaration]) -> _Layer:
    layer: _Layer = {}
    for path, value in flags.items():
        assert path in declared
        if value is not None and value != ():
            layer[path] = (value, declared[path].flag)
    return layer


def _nearest(name: str, declared: Mapping[str, Declaration]) -> str:
    """Return "; did you mean x?", or nothing when no name is near."""
    sections = {d.section for d in declared.values()}
    candidates = [*declared, *sections]
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    if not close and "." in name:  # the right key in the wrong section
        key = name.split(".", 1)[1]
        found = difflib.get_close_matches(key, [d.key for d in declared.values()], n=1)
        close = [d.path for d in declared.values() if found and d.key == found[0]]
    return f"; did you mean {close[0]}?" if close else ""


def _convert(declaration: Declaration, value: object, source: str) -> object:
    is_text = isinstance(value, str)
    if _is_list(declaration.type) and is_text:
        value = [part.strip() for part in typing.cast("str", value).split(",") if part.strip()]
    if path := _path_rule(declaration):
        return _convert_path(declaration, value, source, empty=path == "may be empty")
    try:
        # Text is all that the environment has; a file has types of its own, which must be right.
        return msgspec.convert(value, declaration.type, strict=not is_text)
    except (msgspec.ValidationError, UnicodeEncodeError):
        expected = _expected(declaration)
        raise UsageError(
            f"{source}: {declaration.path}: expected {expected}, not {_shown(value)}"
        ) from None


def _path_rule(declaration: Declaration) -> str | None:
    """Return whether a setting that is a path is "required" or "may be empty"; None: no path."""
    _, meta = typing.get_args(declaration.type)
    return None if meta.extra is None else meta.extra.get("path")


def _convert_path(declaration: Declaration, value: object, source: str, *, empty: bool) -> str:
    if isinstance(value, str) and empty and not value.strip():
        return ""
    try:
        if not isinstance(value, str):
            raise UsageError(f"expected text, not {_shown(value)}")
        return str(expanded(value))
    except UsageError as error:
        raise UsageError(f"{source}: {declaration.path}: {error}") from None


def _shown(value: object) -> str:
    try:
        given = json.dumps(value, ensure_ascii=False, default=str)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "what is given"
    return given if len(given) <= SHOWN_CHARS_MAX else given[:SHOWN_CHARS_MAX] + "..."


def _expected(declaration: Declaration) -> str:
    """Return in words what a setting takes; msgspec's own words name Python's types."""
    plain, meta = typing.get_args(declaration.type)
    if typing.get_origin(plain) is Literal:
        return "one of " + ", ".join(typing.get_args(plain))
    if plain is bool:
        return "true or false"
    if plain in (int, float):
        number = "a whole number" if plain is int else "a number"
        return f"{number} from {meta.ge} to {meta.le}"
    return "a list of one or more texts" if _is_list(declaration.type) else "text"


def _is_list(kind: object) -> bool:
    plain = getattr(kind, "__origin__", kind)  # of Annotated[...]
    return isinstance(plain, types.GenericAlias) and typing.get_origin(plain) is tuple
