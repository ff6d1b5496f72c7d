"""A process killed at any step loses nothing, doubles nothing, and the next one goes on."""

import contextlib
import signal
from collections.abc import Mapping
from typing import Final

import pytest

from app.kernel.failpoints import Failpoint
from tests.faults.steps.role_process import Role
from tests.faults.steps.site import Site
from tests.faults.steps.table import CASES, Case

# Who else must work for the work of a role to come to its end.
BESIDE: Final[Mapping[Role, tuple[Role, ...]]] = {
    Role.API: (Role.WORKER,),
    Role.COORDINATOR: (Role.WORKER,),
    Role.WORKER: (),
}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=[] if case.often else pytest.mark.faults)
        for case in CASES
    ],
)
async def test_a_process_killed_here_leaves_nothing_undone(case: Case, site: Site):
    finished = await case.scene(site)
    await site.step_aside()
    with contextlib.ExitStack() as running:
        for other in BESIDE[case.role]:
            running.enter_context(site.start(other))
        with site.start(case.role, Failpoint(name=case.failpoint)) as doomed:
            assert await doomed.died() == -signal.SIGKILL, doomed.last_words()
        running.enter_context(site.start(case.role))
        await site.rest(finished)
