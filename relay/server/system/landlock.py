"""Denies this process access to some files by Landlock (landlock(7)), where the kernel has it.

Landlock only has allow rules, and a rule for a directory covers everything below it. So every
directory on the path to a forbidden file gets no rule, and all directories in it get one. A file in
it gets one only if it is needed: a rule holds a reference, so the space of a deleted file (a log or
a backup beside the data) would not be freed before this process ends. Files created in such a
directory later are forbidden, too; elsewhere nothing changes. Only reading, writing and truncating
files are restricted; in addition the kernel then refuses to move or link files between directories,
to trace outside processes, and (newer ones) to send them signals.

It takes three system calls, called by their numbers, which are the same on every architecture: a
library for them is not worth a dependency.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1
_WRITE_FILE, _READ_FILE, _TRUNCATE = 1 << 1, 1 << 2, 1 << 14
_TRUNCATE_ABI, _SCOPE_ABI = 3, 6
_SCOPE_SIGNAL: Final = 1 << 1
ENTRIES_MAX: Final = 10_000
"""For one directory on the path: each entry is a rule, and costs some microseconds at the start."""


def abi() -> int:
    """Return the kernel's Landlock version; 0: none, or not for this process."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    except OSError:
        return 0


def forbid(files: Iterable[Path], needed: Iterable[Path] = ()) -> bool:
    """Prevent this process and its children from ever opening some files.

    Call it before there is another thread, after ``prctl.no_new_privileges``.

    Args:
        files: they need not exist.
        needed: files on the path to them that must still be opened.

    Returns:
        False: the kernel has no Landlock, or a directory on the path is too large; nothing is
        restricted then.

    Raises:
        OSError: the kernel refuses what it claims to support.
    """
    version = abi()
    forbidden = {os.path.realpath(file) for file in files}
    if not version:
        return False
    found = _allowed(forbidden, {os.path.realpath(file) for file in needed})
    if found is None:
        return False
    rights = _READ_FILE | _WRITE_FILE | (_TRUNCATE if version >= _TRUNCATE_ABI else 0)
    attributes = struct.pack("=Q", rights)
    if version >= _SCOPE_ABI:
        attributes = struct.pack("=QQQ", rights, 0, _SCOPE_SIGNAL)
    ruleset = _call(
        _CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0)
    )
    try:
        for path in found:
            _allow(ruleset, path, rights)
        _call(_RESTRICT_SELF, ctypes.c_int(ruleset), ctypes.c_uint32(0))
    finally:
        os.close(ruleset)
    return True


def beside(files: Iterable[Path], data: Path) -> list[Path]:
    """Return the files beside the path to ``files``, in directories not on the path to the data.

    An example is /etc, which belongs to the system and is stable. Beside and above the data there
    are logs and backups that come and go: see the module's docstring.
    """
    data = Path(os.path.realpath(data))
    ways = {parent for file in files for parent in Path(os.path.realpath(file)).parents}
    found: list[Path] = []
    for directory in ways - {data, *data.parents}:
        with contextlib.suppress(OSError):
            found += directory.iterdir()
    return found


def _allowed(forbidden: set[str], needed: set[str]) -> list[str] | None:
    """Return what is allowed beside the path to the forbidden files; None: too many.

    Paths are strings here: there may be thousands.
    """
    ways = {os.fspath(parent) for file in forbidden for parent in Path(file).parents}
    found: list[str] = []
    for directory in ways:
        try:
            with os.scandir(directory) as entries:
                paths = [
                    entry.path
                    for entry in entries
                    if not entry.is_symlink() and (entry.path in needed or not entry.is_file())
                ]
        except OSError:
            continue  # missing, or not accessible to this process: the same holds for its content
        if len(paths) > ENTRIES_MAX:
            return None
        found += [path for path in paths if path not in forbidden and path not in ways]
    return found


def _allow(ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # deleted meanwhile, or not accessible to this process
    try:
        rule = struct.pack("=Qi", rights, fd)
        _call(
            _ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0)
        )
    except OSError as error:
        # a kind of file that rules do not support
        if error.errno not in (errno.EBADFD, errno.EINVAL):
            raise
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    result = int(_libc().syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


@cache
def _libc() -> ctypes.CDLL:
    """Return the C library. Kept: loading it takes longer than many calls."""
    return ctypes.CDLL(None, use_errno=True)
