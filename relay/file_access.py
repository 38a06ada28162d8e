"""Who besides this process's user may use a file or directory, by its owner, group and mode.

A group grants nobody else access if only this process can be in it. Kubernetes assigns everything
in a volume to the group ``fsGroup``, a number without a name, and opens it to that group at every
start of a pod.
"""

from __future__ import annotations

import os
import stat
import sys

try:
    import grp
    import pwd
except ModuleNotFoundError:  # Windows
    pass


def open_to_others(status: os.stat_result) -> bool:
    """Return True if the mode allows access for others: all, or a group with other members."""
    if sys.platform == "win32":
        return False  # modes have no meaning there
    mode = status.st_mode
    if mode & stat.S_IRWXO:
        return True
    return bool(mode & stat.S_IRWXG) and not _group_is_ours_alone(status.st_gid)


def _group_is_ours_alone(gid: int) -> bool:
    """Return True if only this process's user can be in a group.

    That is the case for a group without a name (a container's fsGroup), and for the group that many
    systems create for each user, with the user's own name.
    """
    if gid == 0 or gid not in {os.getegid(), *os.getgroups()}:
        return False
    try:
        group = grp.getgrgid(gid)
    except KeyError:
        return True
    try:
        user = pwd.getpwuid(os.geteuid())
    except KeyError:
        return False
    return (
        group.gr_gid == user.pw_gid
        and group.gr_name == user.pw_name
        and set(group.gr_mem) <= {user.pw_name}
    )
