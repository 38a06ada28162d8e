"""The register of used tickets: shared by processes, exact, bounded."""

from __future__ import annotations

import contextlib
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Iterator

from relay.server.ticket_register import BITMAP_BYTES, BLOCK, TicketRegister


def in_child(work: Callable[[], bytes]) -> bytes:
    """Run a function in a forked process, as a worker is; return what it writes."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_fd, work())
        finally:
            os._exit(0)
    os.close(write_fd)
    with os.fdopen(read_fd, "rb") as output:
        answer = output.read()
    os.waitpid(pid, 0)
    return answer


@contextlib.contextmanager
def locked_elsewhere(register: TicketRegister, at: int) -> Iterator[None]:
    """Hold the lock of a byte in a stopped process, which is killed at the end."""
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        fcntl.lockf(register._lock_fd, fcntl.LOCK_EX, 1, at)
        os.write(write_fd, b"!")
        signal.pause()
    assert os.read(read_fd, 1) == b"!"
    try:
        yield
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read_fd)
        os.close(write_fd)


def test_a_ticket_is_used_once() -> None:
    register = TicketRegister()
    generation = register.begin()
    assert generation == 1
    numbers = [register.allot(generation) for _ in range(3 * BLOCK)]
    assert numbers == list(range(3 * BLOCK))
    for number in (0, 1, 7, 8, 3 * BLOCK - 1):
        assert register.spend(generation, number)
        assert not register.spend(generation, number)


def test_what_another_process_has_used_is_used() -> None:
    register = TicketRegister()
    generation = register.begin()
    assert generation is not None
    assert in_child(lambda: bytes((register.spend(generation, 5),))) == b"\1"
    assert not register.spend(generation, 5)
    numbers = [in_child(lambda: str(register.allot(generation)).encode()) for _ in range(3)]
    assert numbers == [str(n * BLOCK).encode() for n in range(3)], "an index was allocated twice"


def test_one_ticket_at_many_workers_at_once() -> None:
    """Each of four processes tries all of 20,000 tickets: every ticket is accepted at most once."""
    register = TicketRegister()
    generation = register.begin()
    assert generation is not None
    count, children = 20_000, 4
    ends: list[tuple[int, int]] = []
    go_read, go_write = os.pipe()
    for _ in range(children):
        read_fd, write_fd = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            os.read(go_read, 1)  # end of file: all begin together
            granted = bytes(register.spend(generation, number) for number in range(count))
            with os.fdopen(write_fd, "wb") as out:
                out.write(granted)
            os._exit(0)
        os.close(write_fd)
        ends.append((pid, read_fd))
    os.close(go_read)
    os.close(go_write)
    grants = []
    for pid, read_fd in ends:
        with os.fdopen(read_fd, "rb") as output:
            grants.append(output.read())
        os.waitpid(pid, 0)
    assert all(len(granted) == count for granted in grants)
    assert max(sum(one) for one in zip(*grants, strict=True)) == 1


def test_a_worker_that_is_stopped_with_a_lock_holds_nobody_up() -> None:
    """Its ticket counts as used meanwhile; when it dies, the lock is free."""
    register = TicketRegister()
    generation = register.begin()
    assert generation is not None
    start = register._start(generation % 4)
    with locked_elsewhere(register, start):
        assert not register.spend(generation, 3)
        assert register.spend(generation, 8)
        for _ in range(3):
            assert register.begin() is not None
        assert register.begin() is None, "the part with the locked byte is not cleared"
    assert register.begin() == 5


def test_two_workers_do_not_take_the_same_numbers() -> None:
    """A second worker gets none at that moment: its clients receive no tickets."""
    register = TicketRegister()
    generation = register.begin()
    assert generation is not None
    read_fd, write_fd = os.pipe()
    pid = os.fork()
    if pid == 0:
        fcntl.lockf(register._lock_fd, fcntl.LOCK_EX, 1, generation % 4)
        os.write(write_fd, b"!")
        signal.pause()
    assert os.read(read_fd, 1) == b"!"
    try:
        assert register.allot(generation) is None
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read_fd)
        os.close(write_fd)
    assert register.allot(generation) == 0


def test_an_old_key_has_no_part_in_it_any_more() -> None:
    register = TicketRegister()
    first = register.begin()
    assert first is not None
    number, used = register.allot(first), register.allot(first)
    assert number is not None
    assert used is not None
    assert register.spend(first, used)
    for _ in range(4):
        last = register.begin()
    assert last == 5
    assert register.allot(first) in (2, None)
    assert not register.spend(first, number)
    assert register.spend(last, number)
    assert register.spend(last, used), "the part is clean"


def test_what_is_given_out_is_bounded() -> None:
    register = TicketRegister()
    generation = register.begin()
    assert generation is not None
    given = 0
    while register.allot(generation) is not None:
        given += BLOCK
        register._block = (0, 0, 0)
    assert given == 8 * BITMAP_BYTES
    assert not register.spend(generation, 8 * BITMAP_BYTES)
    assert not register.spend(generation, -1)
    following = register.begin()
    assert following is not None
    assert register.allot(following) == 0


def test_the_next_version_goes_on_with_it() -> None:
    """Used tickets stay used in both versions, and locks of either hold."""
    first = TicketRegister()
    generation = first.begin()
    assert generation == 1
    assert first.allot(1) == 0
    assert first.spend(1, 0)
    fd = os.dup(first.fd)  # as it is inherited

    def next_version() -> bytes:
        second = TicketRegister(fd)
        assert second.fd == fd
        assert second.knows(1)
        assert not second.knows(2)
        assert not second.spend(1, 0)
        assert second.spend(1, 9)
        assert second.allot(1) == BLOCK
        assert second.begin() == 2
        return b"done"

    assert in_child(next_version) == b"done"
    assert first.knows(2)
    assert not first.spend(1, 9)
    os.close(fd)


def test_one_of_another_layout_is_not_gone_on_with() -> None:
    other = TicketRegister()
    assert other.begin() == 1
    other._cells[2 * 4] += 1
    for fd in (os.dup(other.fd), os.memfd_create("shorter")):
        mine = TicketRegister(fd)
        assert not mine.knows(1)
        assert mine.begin() == 1
        assert os.fstat(mine.fd).st_ino != os.fstat(other.fd).st_ino


def test_no_process_can_truncate_it() -> None:
    """SIGBUS would kill all processes that map it: a compromised worker has the descriptor, too."""
    register = TicketRegister()

    def try_it() -> bytes:
        for size in (0, os.fstat(register.fd).st_size + 1):
            with contextlib.suppress(PermissionError):
                os.ftruncate(register.fd, size)
                return b"done"
        try:
            fcntl.fcntl(register.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
        except PermissionError:
            return b"refused"
        return b"sealed"

    assert in_child(try_it) == b"refused"
    assert register.begin() == 1


def test_where_files_are_limited_it_is_there_and_not_handed_over() -> None:
    def limited() -> bytes:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        register = TicketRegister()
        assert register.fd == -1
        generation = register.begin()
        assert generation == 1
        assert in_child(lambda: bytes((register.spend(1, 5),))) == b"\1"
        assert not register.spend(1, 5)
        return b"done"

    assert in_child(limited) == b"done"


def test_two_agents_do_not_begin_the_same_key() -> None:
    """During an upgrade there are two: one waits for the other's lock, and tries again."""
    register = TicketRegister()
    with locked_elsewhere(register, 4):
        assert register.begin() is None
    assert register.begin() == 1
