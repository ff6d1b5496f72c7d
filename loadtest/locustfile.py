"""
The entry of Locust: `locust -f loadtest/locustfile.py --plan runs/1/plan.json SeckillShopper`.

`doorbuster load run` writes the plan and starts Locust as a process of its own,
because gevent replaces what asyncio stands on. Ends by itself when the last
shopper has left.
"""

from argparse import ArgumentParser
from pathlib import Path

import gevent  # type: ignore[import-untyped]  # ships no types
import msgspec
from locust import events, stats
from locust.env import Environment

from loadtest.board import BOARD, to_three_digits
from loadtest.lobby import read_plan
from loadtest.scenarios.group_buy import GroupShopper
from loadtest.scenarios.seckill import SeckillShopper

__all__ = ["GroupShopper", "SeckillShopper"]

stats.bucket_response_time = to_three_digits


@events.init_command_line_parser.add_listener  # type: ignore[untyped-decorator]
def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--plan", required=True, help="Written by `doorbuster load run`.")


@events.test_start.add_listener  # type: ignore[untyped-decorator]
def open_lobby(environment: Environment, **_: object) -> None:
    """Fill the board, and end the run when everybody has left."""
    assert environment.parsed_options is not None
    plan = read_plan(Path(environment.parsed_options.plan))
    BOARD.fill(plan)

    def end() -> None:
        BOARD.everybody_left.wait()
        BOARD.history.write(Path(plan.history_path))
        Path(plan.generator_path).write_bytes(msgspec.json.encode(BOARD.notes()))
        assert environment.runner is not None
        environment.runner.quit()

    gevent.spawn(end)
