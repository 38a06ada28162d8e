"""Builds the wheel: with RELAY_COMPILE=1 a compiled one, by mypyc, and else a pure one.

The modules of ``relay/compiled.py`` become extensions, which lie in the wheel beside their sources.
Nothing is written into the checkout: an extension there would hide the source that is edited. An
editable installation is therefore never compiled.
"""

from __future__ import annotations

import os
import runpy
import shutil
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

SWITCH: Final = "RELAY_COMPILE"
GROUP: Final = "relay"
"""All modules are one library, so that they call each other directly: ``relay__mypyc``."""
TOOLS: Final = ("msgpack-types>=0.5", "mypy>=2.4", "setuptools>=77")
"""As in pyproject.toml, group ``compile``."""


class CompileHook(BuildHookInterface):  # type: ignore[type-arg]
    """See the module's docstring."""

    def dependencies(self) -> list[str]:
        """Return what this build needs besides hatchling.

        mypy looks at the types of the libraries that the modules use, so they are among it.
        """
        return [*TOOLS, *self.metadata.core.dependencies] if _wanted() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and have the extensions put into the wheel."""
        if not _wanted() or version == "editable":
            return
        _check_tools()
        root = Path(self.root)
        self._made = Path(tempfile.mkdtemp(prefix="relay-compile-"))
        try:
            extensions = _compile(root, self._made)
        except BaseException:
            shutil.rmtree(self._made)
            raise
        for extension in extensions:
            place = str(extension.relative_to(self._made / "lib"))
            build_data["force_include"][str(extension)] = place
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove what was made on the way."""
        made = getattr(self, "_made", None)
        if made is not None:
            shutil.rmtree(made)


def _wanted() -> bool:
    value = os.environ.get(SWITCH, "0")
    if value not in ("", "0", "1"):
        sys.exit(f"{SWITCH} is 0 or 1, not {value!r}")
    return value == "1"


def _check_tools() -> None:
    """Report in one line what is missing; setuptools would need many."""
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    header = Path(sysconfig.get_path("include")) / "Python.h"
    for found, what in (
        (shutil.which(compiler) is not None, f"a C compiler ({compiler})"),
        (header.is_file(), f"Python's headers ({header})"),
    ):
        if not found:
            sys.exit(f"{SWITCH}=1 needs {what}; on Debian: apt install gcc python3-dev")


def _compile(root: Path, made: Path) -> list[Path]:
    """Compile the modules; return the extensions, below ``made``/lib as in the package."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    modules = runpy.run_path(str(root / "relay" / "compiled.py"))["MODULES"]
    os.chdir(root)  # mypy finds its settings, and names modules by their place
    extensions = mypycify(
        ["--config-file=pyproject.toml", *(name.replace(".", "/") + ".py" for name in modules)],
        opt_level=os.environ.get("MYPYC_OPT_LEVEL", "3"),
        debug_level="0",
        multi_file=True,
        group_name=GROUP,
        target_dir=str(made / "c"),
    )
    command = _build_ext(Distribution({"name": "relay", "ext_modules": extensions}))
    command.build_lib = str(made / "lib")
    command.build_temp = str(made / "tmp")
    command.ensure_finalized()
    command.run()
    found = sorted((made / "lib").rglob("*.so"))
    if len(found) != len(modules) + 1:
        sys.exit(f"{len(modules)} modules were to be compiled, and {len(found)} extensions made")
    return found


def _build_ext(distribution: Any) -> Any:  # noqa: ANN401 - setuptools is there when compiling
    """Return setuptools' command. The files of an extension are compiled beside each other.

    Nearly all of them belong to one extension, and setuptools would take them in turn.
    """
    from setuptools.command.build_ext import build_ext

    class InParallel(build_ext):
        def build_extensions(self) -> None:
            compile_some = self.compiler.compile

            def in_parallel(sources: list[str], **how: object) -> list[str]:
                with ThreadPoolExecutor(os.cpu_count()) as threads:
                    made = threads.map(lambda source: compile_some([source], **how), sources)
                    return [path for paths in made for path in paths]

            self.compiler.compile = in_parallel
            super().build_extensions()

    return InParallel(distribution)
