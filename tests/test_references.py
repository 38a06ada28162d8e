"""References in code, tests and docs resolve: pages, headings, rules, files, tests.

The forms are ``docs/PAGE.md, "Heading"`` (in Markdown also a link with an anchor), ``docs/PAGE.md,
section 1.2`` for a page that numbers its headings, and ``invariant "Name"`` for a rule of
docs/invariants.md. A rule is never referred to by its number. In the program, a name between double
backticks is defined in the program; in a page, `package/module` is a module.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
RULES = ROOT / "docs" / "invariants.md"
NOT_BUILT = "**Not built yet"

NAME = r"(?<![\w/.-])((?:[\w.-]+/)*[\w-]+\.md)\b"
PAGE = re.compile(NAME)
"""A page's path."""
BARE_NAME = re.compile(r'"[\w-]+\.md"')
"""A string that is only a file name: code joins a path from it."""
HEADING_OF_PAGE = re.compile(NAME + r'[`)\]]*,? \(?"([^"]+)"')
SECTION_OF_PAGE = re.compile(NAME + r"[`)\]]*,? \(?sections? (\d+(?:\.\d+)*)")
LINK = re.compile(r"\]\((?![a-z]+:)([^)#\s]*)#([^)\s]+)\)")
INVARIANT = re.compile(r'\b[Ii]nvariants? ((?:"[^"]+"(?:, | and |, and )?)+)')
RULE_WORDS = ("rule", "law", "invariant")
BY_NUMBER = re.compile(
    rf"\b(?:{'|'.join(RULE_WORDS)})s?[ ,:#-]+(?:no\.? |number )?#?\d", re.IGNORECASE
)
WRONG_FORM = re.compile(
    r"\binvariants?: |\b[Ii]nvariants? (?:(?:of )?[A-Z]|['`“‘])|\([Ii]nvariants? (?!\")"
)
"""An invariant's name without quotes would escape the checks above."""
FILE = re.compile(
    r"(?<![\w/.*{-])((?:relay|tests|benchmarks|loadtest|examples)/[\w./-]+\.py)\b(?:::(\w+))?"
)
FOLDER = re.compile(r"`((?:tests|benchmarks|loadtest|examples|docs|requirements)/[\w./-]+)`")
HEADING = re.compile(r"^#{1,6} +(.+?) *$", re.MULTILINE)


@cache
def files() -> list[Path]:
    """Return all text files of the repository, including new ones."""
    if (ROOT / ".git").exists():
        git = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]
        listed = subprocess.run(
            [*git, "--exclude-standard"], cwd=ROOT, capture_output=True, check=True, timeout=60
        )
        found = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    else:  # an unpacked archive
        trees = ("relay", "tests", "benchmarks", "loadtest", "examples", "docs")
        found = [*ROOT.glob("*"), *(file for tree in trees for file in (ROOT / tree).rglob("*"))]
        found = [file for file in found if file.suffix != ".pyc"]
    found = [file for file in found if "corpus" not in file.parts]  # bytes for the fuzzers
    return sorted(file for file in found if file.is_file() and b"\0" not in file.read_bytes())


def flat(text: str) -> str:
    """Return the text with each paragraph on one line, so that a wrapped reference is whole."""
    paragraphs = re.split(r"\n(?:[ \t]*(?:#|//|>)?[ \t]*\n)+", text)
    return "\n".join(re.sub(r"\s*\n\s*(?:(?:#|//|>)+ )?\s*", " ", part) for part in paragraphs)


def without_code(markdown: str) -> str:
    """Return the page without fenced code, in which comments look like headings."""
    return re.sub(r"^```.*?^```", "", markdown, flags=re.MULTILINE | re.DOTALL)


@cache
def headings(page: Path) -> frozenset[str]:
    """Return the names of a page's headings: without a number, and also without an explanation."""
    found = set()
    for title in HEADING.findall(without_code(page.read_text())):
        name = re.sub(r"^\d+(?:\.\d+)*\.? ", "", title)
        found |= {name, re.split(r" \(|, |: ", name)[0]}
    return frozenset(found)


def sections(page: Path) -> set[str]:
    """Return the numbers of a page's headings."""
    titles = HEADING.findall(without_code(page.read_text()))
    return {found[1] for title in titles if (found := re.match(r"(\d+(?:\.\d+)*)\.? ", title))}


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub generates from a page's headings."""
    titles = HEADING.findall(without_code(page.read_text()))
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


def rules() -> dict[str, str]:
    """Return the rules by name, each with its text."""
    parts = re.split(r"^## \d+\. (.+)$", RULES.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def found_page(file: Path, name: str) -> Path | None:
    """Resolve the name of a page: from the repository's root, or from the file's own folder."""
    for base in (ROOT, file.parent):
        if (base / name).is_file():
            return base / name
    return None


def faults(file: Path, text: str) -> Iterator[str]:
    """Describe each reference in a text that does not resolve."""
    line = flat(text)
    bare = {found[1:-1] for found in BARE_NAME.findall(text)} if file.suffix == ".py" else set()
    if ".md" in line:  # looking for the forms takes much longer
        yield from _faults_of_pages(file, line, bare)
    for name, anchor in LINK.findall(line) if file.suffix == ".md" else []:
        page = found_page(file, name) if name else file
        if page is None or anchor not in anchors(page):
            yield f"no anchor {name}#{anchor}"
    of_rules = "nvariant" in line  # this, too, takes much less time than the forms
    for names in INVARIANT.findall(line) if of_rules else []:
        for name in re.findall(r'"([^"]+)"', names):
            if name not in rules():
                yield f'no invariant "{name}"'
    lower = line.lower()
    numbered = BY_NUMBER.finditer(line) if any(word in lower for word in RULE_WORDS) else ()
    for found in [*numbered, *(WRONG_FORM.finditer(line) if of_rules else ())]:
        yield f"not by name: {line[found.start() : found.end() + 30]!r}"
    for name, test in FILE.findall(line) if ".py" in line else []:
        if not (ROOT / name).is_file():
            yield f"no file {name}"
        elif test and test not in functions(ROOT / name):
            yield f"no {test} in {name}"
    for name in FOLDER.findall(line) if file.suffix == ".md" else []:
        if not (ROOT / name).exists():
            yield f"nothing at {name}"


def _faults_of_pages(file: Path, line: str, bare: set[str]) -> Iterator[str]:
    for name in PAGE.findall(line):
        known = found_page(file, name) or (name in bare and (ROOT / "docs" / name).is_file())
        if not known:
            yield f"no page {name}"
    for name, heading in HEADING_OF_PAGE.findall(line):
        page = found_page(file, name)
        if page and heading.rstrip(",.") not in headings(page):
            yield f'no heading "{heading}" in {name}'
    for name, number in SECTION_OF_PAGE.findall(line):
        page = found_page(file, name)
        if page and number not in sections(page):
            yield f"no section {number} in {name}"


@cache
def functions(file: Path) -> frozenset[str]:
    """Return the names of a module's functions, methods and classes."""
    return frozenset(_defined(ast.parse(file.read_text())))


def _defined(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield node.name
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):  # not what is in expressions
        inside = getattr(node, field, [])
        for one in inside if isinstance(inside, list) else []:
            yield from _defined(one)


def test_every_reference_leads_somewhere() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {fault}"
        for file in files()
        if file != Path(__file__)
        for fault in faults(file, file.read_text())
    ]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize("name", rules())
def test_each_rule_has_a_reason_and_a_test(name: str) -> None:
    """A rule without a test is allowed only if the page states that it is not built yet."""
    text = rules()[name]
    assert "*Why.*" in text
    tests = [file for file, _ in FILE.findall(text) if file.startswith("tests/")]
    assert bool(tests) != (NOT_BUILT in text)


def test_rules_are_numbered_without_holes() -> None:
    numbers = re.findall(r"^## (\d+)\. ", RULES.read_text(), re.MULTILINE)
    assert [int(number) for number in numbers] == list(range(1, len(rules()) + 1))
    assert len(rules()) == len(numbers) > 10


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("# see rule 7", "not by name"),
        ("what comes again (rules\n    # 4 and 5)", "not by name"),
        ("(invariant 7)", "not by name"),
        ("Rule #7", "not by name"),
        ("rule-7", "not by name"),
        ("the invariant 'No silent tail'", "not by name"),
        ("(invariant: No silent tail)", "not by name"),
        ("Invariant No silent tail", "not by name"),
        ("(invariant 'No silent tail')", "not by name"),
        ('the invariant "No loud tail" holds', 'no invariant "No loud tail"'),
        ('invariants "No silent tail" and "No\n    # loud tail"', 'no invariant "No loud tail"'),
        ("see handshake.md", "no page handshake.md"),
        ("as architecture.md says", "no page architecture.md"),
        ("(docs/handshake.md)", "no page docs/handshake.md"),
        ('docs/protocol.md, "Tickets for the opera"', "no heading"),
        ('docs/protocol.md ("Tickets for\n# the opera")', "no heading"),
        ("docs/protocol.md, section 99.1", "no section 99.1"),
    ],
)
def test_a_reference_that_leads_nowhere_is_found(text: str, fault: str) -> None:
    file = ROOT / "relay" / "somewhere.py"
    assert [found for found in faults(file, text) if found.startswith(fault)]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[a](docs/protocol.md#no-such-thing)", "no anchor"),
        ("`relay/nowhere.py`", "no file"),
        ("make bench ARGS=benchmarks/nowhere.py", "no file"),
        ("`tests/nowhere/`", "nothing at"),
        ("`tests/test_references.py::test_nothing`", "no test_nothing"),
    ],
)
def test_a_reference_of_a_page_that_leads_nowhere_is_found(text: str, fault: str) -> None:
    assert [found for found in faults(ROOT / "README.md", text) if found.startswith(fault)]


def test_good_references_are_left_alone() -> None:
    text = (
        'A tail (invariant "No silent tail") as in invariants "One seam"\n# and "Gaps are rare";'
        ' docs/protocol.md, "Records", and docs/protocol.md, section 6.3.\nPAGE = "protocol.md"\n'
    )
    assert list(faults(ROOT / "relay" / "somewhere.py", text)) == []


# --- names of the program ------------------------------------------------------------------------
FOREIGN = frozenset({
    "RELAY_SECTION__KEY", "a1ice", "alice", "bob", "bob_", "cp", "fsGroup", "hatch_build",
    "no_args_is_help", "py", "run_in_terminal", "tar", "tcp_info",
})  # fmt: skip
"""Names between double backticks that are not the program's."""
STRING = re.compile(r'"""(?:.|\n)*?"""')
MODULE = re.compile(r"`([a-z_]+(?:/[a-z_]+)+)`")
QUALIFIED = re.compile(r"`(?:[\w/]*[./])?([a-z_]+)\.([A-Z]\w*)`")


def named(text: str) -> set[str]:
    """Return the parts of all names between double backticks in docstrings and comments."""
    prose = " ".join([*STRING.findall(text), *re.findall(r"#.*", text)])
    names = re.findall(r"``([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)(?:\(\))?``", prose)
    return {part for name in names for part in name.split(".")}


def test_a_name_of_the_program_exists() -> None:
    """A docstring must be updated when a name that it mentions is changed."""
    texts = {file: file.read_text() for file in sorted((ROOT / "relay").rglob("*.py"))}
    code = "\n".join(re.sub(r"#.*", "", STRING.sub("", text)) for text in texts.values())
    known = {*re.findall(r"\w+", code), *FOREIGN}
    known |= {part for file in texts for part in file.with_suffix("").relative_to(ROOT).parts}
    found = {
        f"{file.relative_to(ROOT)}: {name}"
        for file, text in texts.items()
        for name in named(text) - known
    }
    assert not found, "\n".join(["", *sorted(found)])


@pytest.mark.parametrize("page", ["architecture.md", "invariants.md"])
def test_a_module_that_a_page_names_exists(page: str) -> None:
    modules = [f"/{file.relative_to(ROOT)}" for file in (ROOT / "relay").rglob("*")]
    names = MODULE.findall((ROOT / "docs" / page).read_text())
    found = [
        name
        for name in names
        if not any(path.endswith((f"/{name}.py", f"/{name}")) for path in modules)
    ]
    assert names
    assert not found


@pytest.mark.parametrize("page", ["architecture.md", "invariants.md"])
def test_a_name_of_a_module_that_a_page_names_is_defined_there(page: str) -> None:
    modules: dict[str, str] = {}
    for file in (ROOT / "relay").rglob("*.py"):
        modules[file.stem] = modules.get(file.stem, "") + file.read_text()
    found = [
        f"{module}.{name}"
        for module, name in QUALIFIED.findall((ROOT / "docs" / page).read_text())
        if module in modules
        if not re.search(rf"^(?:class |def |async def )?{name}\b", modules[module], re.MULTILINE)
    ]
    assert not found


def test_a_name_that_is_none_is_found() -> None:
    text = 'def a():\n    """See ``nowhere.gone``."""  # or ``nothing``\n'
    assert named(text) == {"nowhere", "gone", "nothing"}
