"""Generates docs/reference.md from the docstrings: ``python -m relay.reference``."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import relay

GUIDE = "docs/client.md".removeprefix("docs/")
HEAD: Final = f"""\
<!-- Made by `python -m relay.reference > docs/reference.md`; a test compares. -->
# Reference of the Python clients

Every public name; all of them are imported from `relay`. How they are used together is in
[{GUIDE}]({GUIDE}). Times are in seconds, and `timeout=None` waits for as long as it takes.
"""
GROUPS: Final[dict[str, Sequence[str]]] = {
    "Clients": ("Client", "BlockingClient"),
    "Rooms": ("Room", "BlockingRoom"),
    "Outcomes of posts": ("Post", "BlockingPost"),
    "Events": (
        "LogEntry", "Message", "Edit", "Redaction", "Reaction", "Erased", "ReadMark", "Control",
        "RoomChanged", "Gap", "Live", "Behind", "RosterChanged", "StateChanged", "Postponed",
        "Unfollowed", "Invited", "DeviceWarning", "Event",
    ),
    "Results": ("Stored", "Joined", "HistoryPage", "SearchPage", "Members", "Member"),
    "Values": ("Address", "parse_address", "Cursor", "GapReason", "Identity", "State"),
    "The server's key": ("KeyPolicy", "KnownServers"),
    "Rooms and rights": (
        "ListedRoom", "RoomInfo", "RoomPerson", "RoomAction", "RoomKind", "RoomRole",
    ),
    "Accounts": (
        "DeviceKey", "KeyFiles", "Device", "Devices", "DeviceChange", "DeviceList", "User",
        "OpenInvitation", "Change", "Preferences", "Writers", "Seen",
        "OwnData", "ReadUpTo", "Deleted",
    ),
}  # fmt: skip
"""Everything but the errors, which follow."""
TWINS: Final = {"BlockingClient": "Client", "BlockingRoom": "Room"}
"""Common members are described only once."""


def markdown() -> str:
    """Return the page."""
    parts = [HEAD]
    for title, names in GROUPS.items():
        parts.append(f"## {title}\n")
        parts += [_public(name) for name in names]
    parts.append("## Errors\n")
    parts.append(
        "What a call can raise, besides `TypeError` and `ValueError` for wrong arguments.\n"
    )
    parts.append("| error | is a | meaning |\n|---|---|---|")
    parts += [_error(name) for name in errors()]
    return "\n".join(parts) + "\n"


def errors() -> list[str]:
    """Return the names of the public exceptions, each after its base classes."""
    kinds = {name: getattr(relay, name) for name in relay._HOME_OF}
    found = {n: k for n, k in kinds.items() if isinstance(k, type) and issubclass(k, Exception)}

    def path(name: str) -> list[str]:
        kinds = [kind for kind in found[name].__mro__ if issubclass(kind, relay.RelayError)]
        return [kind.__name__ for kind in reversed(kinds)]

    return sorted(found, key=path)


def _error(name: str) -> str:
    kind = getattr(relay, name)
    bases = ", ".join(f"`{base.__name__}`" for base in kind.__bases__)
    text = " ".join(_prose(inspect.getdoc(kind) or "").split())
    fields = "; ".join(
        f"`.{field}`" + (f": {_prose(doc)}" if doc else "") for field, _, doc in _fields(kind)
    )
    fields += "".join(
        f"{'; ' if fields else ''}`.{key}`: {_prose(inspect.getdoc(value) or '')}"
        for key, value in vars(kind).items()
        if isinstance(value, property)
    )
    return f"| `{name}` | {bases} | {text}{' ' if fields else ''}{' '.join(fields.split())} |"


def _public(name: str) -> str:
    value = getattr(relay, name)
    if not isinstance(value, type):
        if inspect.isfunction(value):
            return f"### {name}\n\n    {name}{_signature(value)}\n\n{_doc(value)}\n"
        members = ", ".join(f"`{getattr(kind, '__name__', kind)}`" for kind in value.__args__)
        return f"### {name}\n\nAny of {members}.\n"
    lines = [f"### {name}\n", _doc(value), ""]
    for field, kind, doc in _fields(value):
        lines.append(f"* `{field}`: `{kind}`" + (f". {_flat(doc)}" if doc else ""))
    if issubclass(value, relay.State | relay.GapReason):
        lines += [f"* `{member.name}`" for member in value]
    twin = getattr(relay, TWINS[name]) if name in TWINS else None
    shared: list[str] = []
    for key, member in _members(value):
        text = inspect.getdoc(member)
        if twin is not None and _same(member, getattr(twin, key, None)):
            shared.append(f"`{key}`")
        elif isinstance(member, property):
            lines.append(f"\n#### {name}.{key}\n\n{_doc(member)}")
        elif text:
            title = name if key == "__init__" else f"{name}.{key}"
            prefix = "async " if inspect.iscoroutinefunction(member) else ""
            call = f"{prefix}{name if key == '__init__' else key}{_signature(member)}"
            lines.append(f"\n#### {title}()\n\n    {call}\n\n{_doc(member)}")
    if shared:
        lines.append(f"\nAs those of `{TWINS[name]}`, without `await`: {', '.join(shared)}.")
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _members(kind: type[Any]) -> Iterator[tuple[str, Any]]:
    """Yield the members of one of our classes, in the order of their definition."""
    seen = set()
    for base in kind.__mro__:
        if not base.__module__.startswith("relay."):
            continue
        for key, member in vars(base).items():
            plain = isinstance(member, property) or inspect.isfunction(member)
            wanted = not key.startswith("_") or (key == "__init__" and bool(member.__doc__))
            if plain and wanted and key not in seen:
                seen.add(key)
                yield key, member


def _same(member: Any, other: Any) -> bool:  # noqa: ANN401  # properties and functions
    """Return True if a member has the same description as that of its twin."""
    if other is None:
        return False
    ours, theirs = inspect.getdoc(member) or "", inspect.getdoc(other) or ""
    return ours.replace("Blocking", "") == theirs


def _signature(function: Callable[..., Any]) -> str:
    signature = inspect.signature(function)
    kept = [p for p in signature.parameters.values() if p.name != "self"]
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", str(signature.replace(parameters=kept)))
    return text.replace(") -> None", ")") if function.__name__ == "__init__" else text


def _fields(kind: type[Any]) -> Iterator[tuple[str, str, str]]:
    """Yield (name, type, docstring) of a class's attributes, from its source."""
    if issubclass(kind, relay.State | relay.GapReason):
        return
    (tree,) = ast.parse(inspect.getsource(kind)).body
    assert isinstance(tree, ast.ClassDef)
    bodies = [tree.body]
    bodies += [n.body for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
    declared: dict[str, tuple[str, str]] = {}
    for body in bodies:
        for node, after in zip(body, [*body[1:], None], strict=True):
            doc = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                doc = str(after.value.value)
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                declared[node.target.id] = (ast.unparse(node.annotation).strip("'\""), doc)
            elif (
                isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute) and doc
            ):
                name = node.targets[0].attr
                declared[name] = (declared.get(name, ("", ""))[0], doc)
    for name, (annotation, doc) in declared.items():
        if not name.startswith("_"):
            yield name, annotation, doc


def _doc(value: object) -> str:
    """Return a docstring as Markdown: its sections become lists."""
    lines = []
    for line in (inspect.getdoc(value) or "").splitlines():
        if line in ("Args:", "Raises:", "Returns:"):
            lines.append(
                {"Args:": "Arguments:", "Raises:": "Raises:", "Returns:": "Returns:"}[line]
            )
            lines.append("")
        elif re.match(r" {4}[\w, ]+: ", line):
            names, _, text = line.strip().partition(": ")
            lines.append(f"* `{'`, `'.join(names.split(', '))}`: {text}")
        elif line.startswith("        "):
            lines.append(f"  {line.strip()}")
        elif line.startswith("    "):
            lines.append(line.strip())
        else:
            lines.append(line)
    return _prose("\n".join(lines))


def _flat(text: str) -> str:
    return _prose(" ".join(text.split()))


def _prose(text: str) -> str:
    return text.replace("``", "`")


if __name__ == "__main__":
    sys.stdout.write(markdown())
