"""Keeping this process from some files, by Landlock (landlock(7)), where the kernel has it.

Landlock knows only what is allowed, and a rule for a directory is one for all below it. So every
directory on the way to a forbidden file gets no rule, and all directories in it get one. A file in
it gets one only if it is needed: a rule holds what it is for, so the space of a deleted file (a log
or a backup beside the data) would not be free before this process ends. What appears in such a
directory later is forbidden, too; elsewhere nothing changes. Reading, writing and cutting
files are restricted, nothing else; the kernel by itself then refuses to move or link files between
directories, to trace processes outside, and (newer ones) to send them signals.

Three system calls by their numbers, which are the same on every architecture: no library is worth
a dependency for them.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Final

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION_FLAG: Final = 1
_PATH_BENEATH: Final = 1
_WRITE_FILE, _READ_FILE, _TRUNCATE = 1 << 1, 1 << 2, 1 << 14
_TRUNCATE_ABI, _SCOPE_ABI = 3, 6
_SCOPE_SIGNAL: Final = 1 << 1
ENTRIES_MAX: Final = 10_000
"""Of one directory on the way: each is a rule, and costs some microseconds at the start."""


def abi() -> int:
    """Return which version of Landlock the kernel has; 0: none, or not for this process."""
    try:
        return _call(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION_FLAG))
    except OSError:
        return 0


def forbid(files: Iterable[Path], needed: Iterable[Path] = ()) -> bool:
    """Let this process, and its children, never open some files.

    Call it before there is another thread, after ``prctl.no_new_privileges``.

    Args:
        files: they need not exist.
        needed: files beside the way to them that are opened all the same.

    Returns:
        False: the kernel has no Landlock, or a directory on the way is too large; nothing is
        restricted then.

    Raises:
        OSError: the kernel refuses what it claims to have.
    """
    version = abi()
    forbidden = {Path(os.path.realpath(file)) for file in files}
    if not version:
        return False
    found = _allowed(forbidden, {Path(os.path.realpath(file)) for file in needed})
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
    """Return what is beside the way to files, where that is not the way to the data: as in /etc.

    That is the system's, and stays. Beside the data, and above, are logs and backups that come and
    go: see the module's docstring.
    """
    data = Path(os.path.realpath(data))
    ways = {parent for file in files for parent in Path(os.path.realpath(file)).parents}
    found: list[Path] = []
    for directory in ways - {data, *data.parents}:
        with contextlib.suppress(OSError):
            found += directory.iterdir()
    return found


def _allowed(forbidden: set[Path], needed: set[Path]) -> list[Path] | None:
    """Return what is allowed beside the way to the forbidden files; None: it is too much."""
    ways = {parent for file in forbidden for parent in file.parents}
    found: list[Path] = []
    for directory in ways:
        try:
            with os.scandir(directory) as entries:
                paths = [
                    directory / entry.name
                    for entry in entries
                    if not entry.is_symlink()
                    and (directory / entry.name in needed or not entry.is_file())
                ]
        except OSError:
            continue  # not there, or not for this process: then nothing in it is, either
        if len(paths) > ENTRIES_MAX:
            return None
        found += [path for path in paths if path not in forbidden and path not in ways]
    return found


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # gone meanwhile, or not for this process
    try:
        rule = struct.pack("=Qi", rights, fd)
        _call(
            _ADD_RULE, ctypes.c_int(ruleset), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0)
        )
    except OSError as error:
        if error.errno not in (errno.EBADFD, errno.EINVAL):  # a kind of file that no rule is for
            raise
    finally:
        os.close(fd)


def _call(number: int, *arguments: object) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(ctypes.c_long(number), *arguments))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
