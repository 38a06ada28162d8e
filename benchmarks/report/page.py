"""Where pages, results and charts are, and how text is put into pages."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[2] / "docs"
PAGE: Final = DOCS / "benchmarks.md"
RESULTS: Final = DOCS / "benchmarks" / "results"
CHARTS: Final = DOCS / "benchmarks" / "charts"


def results_given(about: str | None, program: str, found: Sequence[Path], maker: str) -> Path:
    """Return the file of results that the command line names, or else the last that was found.

    Exits, with a line that says why, when there is none.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {program}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("results", nargs="?", type=Path, metavar="RESULTS.json")
    named: Path | None = parser.parse_args().results
    if named is not None and not named.is_file():
        parser.error(f"there is no file {named}")
    if named is None and not found:
        parser.exit(1, f"there are no results yet; {maker} makes some\n")
    return found[-1] if named is None else named


def put(page: Path, begin: str, end: str, text: str) -> None:
    """Replace what stands between two markers of a page.

    Raises:
        ValueError: the page has no such markers.
    """
    before, found, rest = page.read_text(encoding="utf-8").partition(begin)
    _, found_end, after = rest.partition(end)
    if not found or not found_end:
        raise ValueError(f"{page} has no place for the tables: {begin} … {end}")
    page.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")


def table(heads: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def picture(name: str, said: str, docs_at: Path = Path()) -> str:
    """Return the HTML that shows a chart on a page, in the reader's light or dark mode."""
    charts_at = docs_at / CHARTS.relative_to(DOCS)
    return (
        "<picture>\n"
        f'  <source media="(prefers-color-scheme: dark)" srcset="{charts_at}/{name}-dark.svg">\n'
        f'  <img alt="{said}" src="{charts_at}/{name}-light.svg">\n'
        "</picture>"
    )
