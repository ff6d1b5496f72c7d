"""Row 25 of the fault matrix: api processes whose clock is an hour wrong."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from loadtest.answers import Outcome
from loadtest.merchant import instant
from tests.faults.lab.scene import QUIET, battle_of, conclude, new_sale
from tests.faults.lab.site import APIS

pytestmark = pytest.mark.faults


@pytest.mark.parametrize("hours", [-1, 1])
async def test_row_25__the_apis_clock_is_an_hour_wrong__the_window_is_valkeys(site, hours):
    for api in APIS:
        site.processes[api].stop()
        site.set_wrong_clock(api, hours)
    await site.start_what_is_down()
    try:
        now = datetime.now(UTC)
        open_now = await new_sale(site, closes_at=instant(now + timedelta(minutes=20)))
        soon = now + timedelta(minutes=20)
        not_yet = await new_sale(site, opens_at=instant(soon))
        battle = battle_of(site, open_now, not_yet, habits=QUIET)
        crowd = battle.crowd
        answers = await asyncio.gather(*(crowd.visit(open_now) for _ in range(10)))
        assert {answer.outcome for told in answers for answer in told} == {Outcome.WON}
        refused = await crowd.click(crowd.wish(not_yet))
        assert refused.code == "not_open"
        crowd.history.clicks.pop()  # its shopper will not come again
        crowd.history.begun -= 1
        await conclude(battle)
    finally:
        for api in APIS:
            site.processes[api].stop()
            site.set_right_clock(api)
        await site.start_what_is_down()
