"""Postgres refuses to run as root: find who runs it instead, without making anybody."""

import os
import pwd
import subprocess
from pathlib import Path
from typing import Final, NamedTuple

from app.kernel.errors import BadConfiguration

# The distribution's own account first: it is meant for this, while `nobody` is shared by strangers.
UNPRIVILEGED_NAMES: Final = ("postgres", "nobody", "daemon")


class Account(NamedTuple):
    """A user of the operating system; both numbers -1: whoever we are."""

    uid: int
    gid: int

    @property
    def is_other(self) -> bool:
        return self.uid != -1


OURSELVES: Final = Account(-1, -1)


def account_for(cluster: Path) -> Account:
    """
    Tell who runs Postgres on these files.

    An ordinary user does it alone. Root takes the owner of a cluster that is there already, else
    the first unprivileged account this machine has.

    Raises:
        BadConfiguration: we are root and the machine has no unprivileged account.
    """
    if os.geteuid() != 0:
        return OURSELVES
    if cluster.exists() and (owner := cluster.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    for name in UNPRIVILEGED_NAMES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(entry.pw_uid, entry.pw_gid)
    raise BadConfiguration(
        problem="Postgres does not run as root, and there is no account "
        + " or ".join(UNPRIVILEGED_NAMES)
    )


def can_reach(account: Account, *paths: Path) -> bool:
    """Whether the account may enter each folder and execute each file; the kernel decides."""
    if not account.is_other:
        return True
    question = 'for path; do test -x "$path" || exit 1; done'
    asked = subprocess.run(  # noqa: S603  a fixed script; the paths are arguments, not text of it
        ["/bin/sh", "-c", question, "sh", *map(str, paths)],
        user=account.uid,
        group=account.gid,
        extra_groups=[],
        cwd="/",
        env={},
        check=False,
        timeout=10,
    )
    return asked.returncode == 0


def give_to(account: Account, path: Path) -> None:
    """Make the account the owner of a path that we have just made."""
    if account.is_other:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
