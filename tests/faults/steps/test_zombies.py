"""Row 14: who sleeps through a recovery finds the past fenced when it wakes up."""

import contextlib
import os
import signal
from pathlib import Path

import pytest

from app.embedded.ports import free_port
from app.kernel.errors import BucketRecovering
from app.kernel.failpoints import Act, Failpoint
from tests.faults.steps.role_process import Role
from tests.faults.steps.site import Site
from tests.waiting import eventually


def is_asleep(pid: int) -> bool:
    """Whether the kernel says that a process is stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.faults
async def test_a_worker_that_wakes_up_with_an_old_batch_writes_nothing(site: Site):
    await site.sale.open()
    await site.buy(3)
    await site.step_aside()
    port = free_port()
    asleep_with_a_batch = Failpoint(name="flusher.after_read", act=Act.PAUSE)
    with site.start(Role.WORKER, asleep_with_a_batch, metrics_port=port) as zombie:
        await eventually(lambda: is_asleep(zombie.pid))

        async def recovered() -> bool:
            # Its lock is free only when the server has ended its silent session, after 5 s.
            with contextlib.suppress(BucketRecovering):
                return await site.sale.recover() is not None
            return False

        await eventually(recovered, within_seconds=30)
        rows = await site.sale.value("SELECT count(*) FROM orders")
        await site.step_aside()
        os.kill(zombie.pid, signal.SIGCONT)

        async def was_fenced() -> bool:
            async with site.client.get(f"http://127.0.0.1:{port}/metrics") as answer:
                told = await answer.text()
            return any(
                line.startswith("doorbuster_") and "flush_fenced" in line and line.endswith(" 1.0")
                for line in told.splitlines()
            )

        await eventually(was_fenced)
        assert rows == 3
        await site.buy(2)

        async def all_there() -> bool:
            return await site.sale.value("SELECT count(*) FROM orders") == 5

        await site.rest(all_there)
