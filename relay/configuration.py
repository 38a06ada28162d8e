"""Reads the settings from flags, the environment and a TOML file.

Precedence: flag > ``RELAY_SECTION__KEY`` > file > default. Two variables of other programs act as
defaults, because users expect it: ``WEB_CONCURRENCY`` (workers) and systemd's ``STATE_DIRECTORY``
(data). An empty variable counts as unset. All mistakes are reported at once, one per line, with the
source (for a file also the line), the key's path and the nearest valid key.
"""

from __future__ import annotations

import difflib
import re
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from relay.bounded_files import read_bounded
from relay.declarations import SHOWN_CHARS_MAX, Declaration, declarations, shown
from relay.environment import near_miss
from relay.errors import UsageError
from relay.settings import Settings
from relay.toml_lines import lines_of

FILE_BYTES_MAX: Final = 1024 * 1024
_AT_LINE: Final = re.compile(r" \(at line (\d+), column (\d+)\)$")
"""How tomllib states the position."""


class Loaded(NamedTuple):
    """Settings, and the source of each value (by dotted path)."""

    settings: Settings
    sources: dict[str, str]


class ConfigurationError(UsageError):
    """The settings have mistakes: ``problems`` has a line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def load(
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    file: Path | None,
) -> Loaded:
    """Read all sources.

    ``flags`` maps dotted paths to given values; None means not given.

    Raises:
        ConfigurationError: the sources have mistakes; it contains all of them.
    """
    declared = {d.path: d for d in declarations()}
    problems: list[str] = []
    values: dict[str, object] = {}
    sources = dict.fromkeys(declared, "default")
    for layer in (
        _conventions(environment),
        _from_file(file, declared),
        _from_environment(environment, declared),
        _from_flags(flags, declared),
    ):
        for path, given in layer.given.items():
            sources[path] = given.source
            try:
                values[path] = declared[path].convert(given.value, typed=given.typed)
            except UsageError as error:
                for text in str(error).split("\n"):
                    layer.mistake(f"{given.source}: {path}: {text}", given.line)
                values[path] = None  # its default is not computed: it could be wrong as well
        problems += [text for _, text in sorted(layer.mistakes, key=lambda found: found[0])]
    for path, declaration in declared.items():
        if path not in values:
            try:
                values[path] = declaration.default
            except UsageError as error:
                problems.append(str(error))
    if problems:
        raise ConfigurationError(problems)
    sections: dict[str, dict[str, object]] = {}
    for path, value in values.items():
        section, key = path.split(".")
        sections.setdefault(section, {})[key] = value
    kinds = typing.get_type_hints(Settings)
    made = {name: kinds[name](**section) for name, section in sections.items()}
    return Loaded(Settings(**made), sources)


class _Given(NamedTuple):
    """A value in one source."""

    value: object
    source: str
    line: int = 0
    """In a file; 0: none, or unknown."""
    typed: bool = False
    """True in a file: only the environment and flags give numbers as text."""


class _Layer:
    """The settings of one source."""

    def __init__(self) -> None:
        self.given: dict[str, _Given] = {}
        """By dotted path."""
        self.mistakes: list[tuple[int, str]] = []
        """Each with its line in the source."""

    def mistake(self, text: str, line: int = 0) -> None:
        """Record a mistake."""
        self.mistakes.append((line, text))


def _conventions(environment: Mapping[str, str]) -> _Layer:
    layer = _Layer()
    if workers := environment.get("WEB_CONCURRENCY", "").strip():
        layer.given["server.workers"] = _Given(workers, "WEB_CONCURRENCY")
    if data := environment.get("STATE_DIRECTORY", "").split(":")[0].strip():
        layer.given["store.data"] = _Given(data, "STATE_DIRECTORY")
    return layer


def _not_toml(file: Path, error: str) -> str:
    """Return the mistake, with the line number in the common place."""
    if (place := _AT_LINE.search(error)) is None:
        return f"{file}: is not valid TOML: {error}"
    line, column = map(int, place.groups())
    return f"{_at(file, line)}: is not valid TOML, column {column}: {error[: place.start()]}"


def _from_file(file: Path | None, declared: Mapping[str, Declaration]) -> _Layer:
    layer = _Layer()
    if file is None:
        return layer
    try:
        # Some editors write a byte order mark, which TOML does not allow.
        text = read_bounded(file, FILE_BYTES_MAX).decode("utf-8-sig").replace("\r\n", "\n")
        document = tomllib.loads(text)
    except OSError as error:
        layer.mistake(f"{file}: cannot be read: {error.strerror}")
        return layer
    except UnicodeDecodeError:
        layer.mistake(f"{file}: is not UTF-8 text")
        return layer
    except (
        ValueError,
        RecursionError,
    ) as error:  # too large a number or nesting is not reported as a TOML error
        layer.mistake(_not_toml(file, str(error)))
        return layer
    lines = lines_of(text)

    def unknown(path: str, kind: str) -> None:
        line = lines.get(path, 0)
        advice = _advice(path, declared)
        layer.mistake(f"{_at(file, line)}: {_quoted(path)}: no such {kind}; {advice}", line)

    known_sections = {d.section for d in declared.values()}
    for section, table in document.items():
        if section in known_sections and not isinstance(table, dict):
            where = _at(file, lines.get(section, 0))
            layer.mistake(f"{where}: {section} is a section: write [{section}], once, and below it")
            continue
        if section not in known_sections:
            unknown(section, "section")
            continue
        for key, value in table.items():
            path = f"{section}.{key}"
            if path in declared:
                line = lines.get(path, 0)
                layer.given[path] = _Given(value, _at(file, line), line, typed=True)
            else:
                unknown(path, "setting")
    return layer


def _from_environment(
    environment: Mapping[str, str], declared: Mapping[str, Declaration]
) -> _Layer:
    by_variable = {d.variable: d for d in declared.values()}
    layer = _Layer()
    for variable, text in sorted(environment.items()):
        declaration = by_variable.get(variable)
        if declaration is None:
            named = ((d.section, d.key) for d in declared.values())
            if (meant := near_miss(variable, named)) is not None:
                advice = f"did you mean {meant}?" if meant else _NO_IDEA
                layer.mistake(f"environment: {_quoted(variable)}: no such setting; {advice}")
        elif text.strip() or declaration.may_be_blank:
            layer.given[declaration.path] = _Given(text, variable)
    return layer


def _from_flags(flags: Mapping[str, object], declared: Mapping[str, Declaration]) -> _Layer:
    layer = _Layer()
    for path, value in flags.items():
        assert path in declared
        if value is not None and value != ():
            layer.given[path] = _Given(value, declared[path].flag)
    return layer


def _at(file: Path, line: int) -> str:
    return f"{file}:{line}" if line else str(file)


def _quoted(name: str) -> str:
    """Quote a name that anybody may have chosen, as part of one line."""
    return name if name.isprintable() and len(name) <= SHOWN_CHARS_MAX else shown(name)


_NO_IDEA = '"relay config init" prints all there are'


def _advice(name: str, declared: Mapping[str, Declaration]) -> str:
    """Return "did you mean x?", or where to look if no name is near."""
    sections = {d.section for d in declared.values()}
    by_key = {d.key: d.path for d in declared.values()}
    if "." not in name:
        if name in by_key:
            return f"write {name} below [{by_key[name].split('.')[0]}]"
        close = difflib.get_close_matches(name, [*declared, *sections], n=1, cutoff=0.6)
        return f"did you mean {close[0]}?" if close else _NO_IDEA
    section, key = name.split(".", 1)
    here = [d.key for d in declared.values() if d.section == section]
    if close := difflib.get_close_matches(key, here, n=1, cutoff=0.6):
        return f"did you mean {section}.{close[0]}?"
    # Perhaps the right key in the wrong section.
    if close := difflib.get_close_matches(key, by_key, n=1, cutoff=0.6):
        return f"did you mean {by_key[close[0]]}?"
    return _NO_IDEA
