"""A spare process gets the slot of a worker that has died, once it has loaded the program."""

from __future__ import annotations

import errno
import os
import select
import signal
import time

from relay.server.boot_report import BOOT_FAILED, BootReport
from relay.server.supervisor.spare import Spare
from tests.support.cluster import DEADLINE_S

PLACE = 3, 7
RAN = 42


def run(place: tuple[int, int], _: BootReport) -> int:
    return RAN if place == PLACE else 1


def nothing() -> None:
    pass


def ended(spare: Spare) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(spare.process.pid, 0)[1])


def test_a_loaded_spare_runs_in_the_slot_that_it_is_given() -> None:
    spare = Spare.fork(nothing, run, nothing)
    assert select.select([spare.line], [], [], DEADLINE_S)[0], "it tells when it has loaded"
    assert spare.give_place(*PLACE)
    assert ended(spare) == RAN
    spare.process.close()


def test_a_spare_gives_way_to_others_only_while_it_loads() -> None:
    """Then it may have to replace a worker at once, on a busy machine."""
    reads, writes = os.pipe()

    def note_policy() -> None:
        os.write(writes, b"%d" % os.sched_getscheduler(0))

    def run_there(_: tuple[int, int], __: BootReport) -> int:
        note_policy()
        return RAN

    spare = Spare.fork(note_policy, run_there, nothing)
    assert select.select([spare.line], [], [], DEADLINE_S)[0], "it tells when it has loaded"
    assert os.read(reads, 16) == b"%d" % os.SCHED_BATCH
    assert spare.give_place(*PLACE)
    assert ended(spare) == RAN
    assert os.read(reads, 16) == b"%d" % os.SCHED_OTHER
    spare.process.close()
    os.close(reads)
    os.close(writes)


def test_a_spare_that_is_still_loading_is_not_waited_for() -> None:
    """It loads slowly, and nobody serves in that slot."""
    spare = Spare.fork(lambda: time.sleep(600), run, nothing)
    assert not spare.give_place(*PLACE)
    assert ended(spare) == -signal.SIGKILL


def test_a_spare_that_has_died_is_of_no_use() -> None:
    spare = Spare.fork(lambda: os._exit(5), run, nothing)
    assert select.select([spare.line], [], [], DEADLINE_S)[0], "its end closes the line"
    assert not spare.give_place(*PLACE)
    assert ended(spare) == 5


def test_a_spare_ends_with_its_supervisor() -> None:
    spare = Spare.fork(nothing, run, nothing)
    spare.close()
    assert ended(spare) == 0


def test_a_spare_that_cannot_load_reports_why() -> None:
    def refused() -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    spare = Spare.fork(refused, run, nothing)
    assert ended(spare) == BOOT_FAILED
    report = spare.process.read()
    assert report is not None
    assert report.startswith("E Too many open files: raise the limit on open files (ulimit -Hn")
    spare.close()
