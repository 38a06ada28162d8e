"""Makes the kernel refuse some system calls, as a container's filter does (seccomp).

Use ``refusing`` as a launcher, or run it in its own process: it cannot be undone.
"""

from __future__ import annotations

import platform
from typing import Final

import pytest

_OPTIONAL: Final = {
    "chmod": 90, "copy_file_range": 326, "fallocate": 285, "fchmodat2": 452, "io_uring_setup": 425,
    "landlock_create_ruleset": 444, "link": 86, "linkat": 265, "memfd_create": 319,
    "membarrier": 324, "pidfd_open": 434, "preadv2": 327, "prlimit64": 302, "pwritev2": 328,
    "renameat2": 316, "sched_getaffinity": 204, "sendfile": 40, "splice": 275,
    "close_range": 436,
}  # fmt: skip
NOT_NEEDED: Final = tuple(_OPTIONAL)
"""System calls for which a relay has another way."""
_X86_64: Final = {
    **_OPTIONAL, "accept4": 288, "access": 21, "clone": 56, "clone3": 435, "connect": 42,
    "epoll_create1": 291,
    "epoll_ctl": 233, "epoll_pwait": 281, "eventfd2": 290, "fcntl": 72, "fdatasync": 75,
    "flock": 73, "fsync": 74, "ftruncate": 77, "getrandom": 318, "getsockopt": 55, "pipe2": 293,
    "pread64": 17, "pwrite64": 18, "recvfrom": 45, "rt_sigaction": 13, "sendto": 44,
    "socketpair": 53, "umask": 95, "uname": 63,
}  # fmt: skip
CAN_BE_REFUSED: Final = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the numbers of system calls are of x86-64"
)
_INSTALL: Final = """
import ctypes, struct
def install(numbers, error):
    libc = ctypes.CDLL(None, use_errno=True)
    one = struct.Struct("=HBBI")
    program = one.pack(0x20, 0, 0, 0)  # the number of the call
    for place, number in enumerate(numbers):
        program += one.pack(0x15, len(numbers) - place, 0, number)  # that one: to the last line
    program += one.pack(0x06, 0, 0, 0x7fff0000) + one.pack(0x06, 0, 0, 0x00050000 | error)
    held = ctypes.create_string_buffer(program, len(program))
    filter = struct.pack("@HP", len(program) // one.size, ctypes.addressof(held))
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, filter, 0, 0) == 0, ctypes.get_errno()  # PR_SET_SECCOMP
"""


def refusing(error: int, *names: str) -> str:
    """Return Python after which these system calls end with an error, in all that follows."""
    return f"{_INSTALL}install({[_X86_64[name] for name in names]!r}, {error})\n"
