"""
Run a program that ends when the process that asked for it ends.

Executed by path as `python -I -S leash.py PARENT SIGNAL UID GID PROGRAM [ARG …]`: it gives up root
when told to (UID and GID -1: stays who it is), asks Linux to send SIGNAL when its parent dies, and
becomes the program. The process id stays the same, and nothing of Python stays in memory.

The order matters. A change of user clears the request, so it comes after. A parent that died before
the request would be missed, so the parent is compared afterwards. Linux ties the request to the
*thread* that started the child: the event loop's, which lives as long as the children are wanted.

Elsewhere than on Linux there is no such request; there a supervisor that is killed leaves its
children, which keep the data directory locked (lock.py) until they are stopped by hand.
"""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def drop_root(uid: int, gid: int) -> None:
    if uid == -1:
        return
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    os.chdir("/")  # the folder we were started in may be closed to this account


def end_with_parent(parent: int, signal_number: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        sys.exit("the parent ended first")


def main(arguments: list[str]) -> None:
    parent, signal_number, uid, gid = (int(number) for number in arguments[:4])
    os.umask(0o077)
    drop_root(uid, gid)
    end_with_parent(parent, signal_number)
    os.execv(arguments[4], arguments[4:])  # noqa: S606  becoming the program is the purpose


if __name__ == "__main__":
    main(sys.argv[1:])
