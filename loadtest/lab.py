"""
A Locust run against a running service: lobby, release, verdict.

Locust runs as a process of its own. Its table is kept (`locust.html`), but the
verdict is made from the history that its users wrote: outcomes by body, three
digits, and latency from the planned click beside latency from the send.
"""

import asyncio
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from app.kernel.equation import Equation
from loadtest.answers import Outcome
from loadtest.checks import OrderDocument, paid_by_group
from loadtest.client import Client
from loadtest.errors import GeneratorFailed, NoGateway
from loadtest.figures import Figures, measure, percentile
from loadtest.history import GroupTerms, History, SaleTerms
from loadtest.lobby import GeneratorNotes, LobbyPlan, read_notes, write_plan
from loadtest.merchant import Merchant
from loadtest.plan import plan_visits, shopper_id
from loadtest.report import Report, report_as_json, this_machine
from loadtest.rush import PRICE_MINOR, Site, clock_behind_seconds
from loadtest.verdict import Threshold, count_orders, grade_run
from loadtest.verify import examine


class Scenario(NamedTuple):
    """What is played, and which Locust user plays it."""

    told: str
    user: str
    buys_in_groups: bool = False


SCENARIOS: Final = {
    "seckill": Scenario(
        "everybody waits in a lobby and clicks once the sale opens; some click twice",
        "SeckillShopper",
    ),
    "group_buy": Scenario(
        "leaders open groups of three and share their codes; the others join, pay, cancel or leave",
        "GroupShopper",
        buys_in_groups=True,
    ),
}
GROUP_SIZE: Final = 3
SPAWNED_PER_SECOND: Final = 100  # Locust warns above this
LATENESS_P99_MS_MAX: Final = 100.0  # of a click against its planned instant
CORES_MAX: Final = 0.9  # Locust is one process: at 1.0 it measures itself
CLICKS_MIN: Final = 50
TICKET_P99_MS_MAX: Final = 2_000.0
_START_SECONDS: Final = 4.0  # Locust's own, before the first user
_END_SECONDS: Final = 120.0  # from the last planned click to the end of Locust
HISTORY_NAME: Final = "history.jsonl.gz"
_LOCUSTFILE: Final = Path(__file__).with_name("locustfile.py")


@dataclass(frozen=True, slots=True, kw_only=True)
class LabOptions:
    """
    One run of the lab.

    Attributes:
        run: makes sale, shoppers and keys unique.
        users: Locust users; each is one shopper.
        spread_seconds: the clicks are planned over so long from the opening.
        window_seconds: groups end so long after they were opened.
        out: folder for report.json, history.jsonl.gz, locust.html and locust.log.
    """

    scenario: str
    run: str
    users: int
    stock: int
    seed: int
    spread_seconds: float
    window_seconds: int
    out: Path
    command: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Played:
    """A run that is over."""

    began_at: float
    plan: LobbyPlan
    history: History
    notes: GeneratorNotes


async def run_lab(site: Site, options: LabOptions) -> Report:
    """
    Open a sale, let Locust's users loose on it, judge, and leave a report.

    Raises:
        Unreachable, NoAnswer: the service does not answer.
        NoGateway: the scenario pays, and the site has no sandbox gateway.
        Refused: the sale could not be made.
        GeneratorFailed: Locust ended without a history.
    """
    if SCENARIOS[options.scenario].buys_in_groups and not site.sandbox_url:
        raise NoGateway
    options.out.mkdir(parents=True, exist_ok=True)
    report = await _judge(site, options, await _play(site, options))
    written = msgspec.json.format(msgspec.json.encode(report_as_json(report)))
    (options.out / "report.json").write_bytes(written)
    return report


async def verify_lab(site: Site, out: Path) -> list[Equation]:
    """
    Judge the orders of an earlier run as they are now.

    Args:
        site: where the run was.
        out: the folder it left.

    Raises:
        NotAHistory: it left none.
    """
    history = History.read(out / HISTORY_NAME)
    shoppers = {click.shopper for click in history.clicks}
    history.tokens = {shopper: site.signer.sign(shopper) for shopper in shoppers}
    return (await examine(site.public_url, site.admin_url, site.admin_token, history)).equations


async def _play(site: Site, options: LabOptions) -> _Played:
    began_at = time.monotonic()
    plan = await _open_sale(site, options)
    plan_path = options.out / "plan.json"
    write_plan(plan_path, plan)
    try:
        await _run_locust(site, options, plan_path)
    finally:
        plan_path.unlink()  # it holds tokens
    history = History.read(Path(plan.history_path))
    history.tokens = plan.tokens
    notes = read_notes(Path(plan.generator_path))
    return _Played(began_at=began_at, plan=plan, history=history, notes=notes)


async def _open_sale(site: Site, options: LabOptions) -> LobbyPlan:
    terms = _terms(options)
    lobby_seconds = _START_SECONDS + 1.2 * options.users / SPAWNED_PER_SECOND
    async with Client(site.public_url) as public:
        behind_seconds = await clock_behind_seconds(public)
    release_at = time.monotonic() + lobby_seconds
    opens_in = timedelta(seconds=lobby_seconds + behind_seconds)
    merchant = Merchant(site.admin_url, site.admin_token)
    try:
        await merchant.open_sale(
            terms,
            title=f"Load run {options.run}",
            opens_at=datetime.now(UTC) + opens_in,
            pay_within_seconds=_pay_within_seconds(terms),
        )
    finally:
        merchant.close()
    return _plan(site, options, terms, release_at)


def _terms(options: LabOptions) -> SaleTerms:
    in_groups = SCENARIOS[options.scenario].buys_in_groups
    group = GroupTerms(GROUP_SIZE, options.window_seconds) if in_groups else None
    return SaleTerms(f"load-{options.run}", options.stock, 1, PRICE_MINOR, "CNY", group)


def _pay_within_seconds(terms: SaleTerms) -> int:
    """Half a group's time: a seat that is left comes back while others still look for one."""
    return 900 if terms.group is None else terms.group.window_seconds // 2


def _plan(
    site: Site,
    options: LabOptions,
    terms: SaleTerms,
    release_at: float,
) -> LobbyPlan:
    shoppers = [shopper_id(options.run, number) for number in range(options.users)]
    return LobbyPlan(
        scenario=options.scenario,
        gateway_url=site.sandbox_url,
        release_at=release_at,
        sales=[terms],
        visits=plan_visits(
            [terms.sale],
            options.users,
            run=options.run,
            seed=options.seed,
            spread_seconds=options.spread_seconds,
        ),
        tokens={shopper: site.signer.sign(shopper) for shopper in shoppers},
        history_path=str(options.out / HISTORY_NAME),
        generator_path=str(options.out / "generator.json"),
    )


async def _run_locust(site: Site, options: LabOptions, plan_path: Path) -> None:
    argv = [sys.executable, "-m", "locust", "-f", str(_LOCUSTFILE), "--plan", str(plan_path)]
    argv += ["--headless", "--only-summary", "--users", str(options.users)]
    argv += ["--spawn-rate", str(SPAWNED_PER_SECOND), "--host", site.public_url]
    argv += ["--html", str(options.out / "locust.html"), "--exit-code-on-error", "0"]
    argv.append(SCENARIOS[options.scenario].user)
    seconds = _START_SECONDS + options.users / SPAWNED_PER_SECOND + options.spread_seconds
    seconds += options.window_seconds if SCENARIOS[options.scenario].buys_in_groups else 0
    with (options.out / "locust.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*argv, stdout=log, stderr=log)
        try:
            async with asyncio.timeout(seconds + _END_SECONDS):
                code = await process.wait()
        except TimeoutError as exc:
            raise GeneratorFailed(options.out / "locust.log", "did not end") from exc
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if code != 0:
        raise GeneratorFailed(options.out / "locust.log", f"exit code {code}")


async def _judge(site: Site, options: LabOptions, played: _Played) -> Report:
    history = played.history
    examined = await examine(site.public_url, site.admin_url, site.admin_token, history)
    figures = measure(history, played.plan.release_at, options.spread_seconds)
    counts = history.counts()
    thresholds = [
        *_thresholds(counts[Outcome.ERROR], figures),
        *_thresholds_of_groups(history, examined.orders, played.notes.gave_up),
    ]
    doubts = find_doubts(history, played.notes, played.plan.release_at, options.spread_seconds)
    return Report(
        grade=grade_run(examined.equations, thresholds, doubts),
        run=options.run,
        command=options.command,
        orders=count_orders(history, examined.orders),
        clicks={outcome.value: counts[outcome] for outcome in Outcome},
        troubles=dict(history.troubles()),
        sold_again=0,
        figures=figures,
        generator_cores=played.notes.cores,
        wall_seconds=time.monotonic() - played.began_at,
        thresholds=tuple(thresholds),
        doubts=tuple(doubts),
        equations=tuple(examined.equations),
        machine=this_machine(),
    )


def _thresholds(errors: int, figures: Figures) -> list[Threshold]:
    p99_ms = figures.click_to_ticket.p99_ms
    return [
        Threshold("answers that a good client never sees", errors, 0, "clicks"),
        Threshold("click -> 202, p99", p99_ms, TICKET_P99_MS_MAX, "ms"),
    ]


def _thresholds_of_groups(
    history: History, orders: Mapping[str, OrderDocument], gave_up: int
) -> list[Threshold]:
    in_groups = [sale for sale, terms in history.sales.items() if terms.group is not None]
    if not in_groups:
        return []
    formed = sum(len(paid_by_group(history, orders, sale)) for sale in in_groups)
    return [
        Threshold("groups formed", formed, 1, "groups", is_floor=True),
        Threshold("orders given up by their shoppers", gave_up, 0, "orders"),
    ]


def find_doubts(
    history: History,
    notes: GeneratorNotes,
    release_at: float,
    spread_seconds: float,
) -> list[str]:
    """
    Say why a run measured its generator rather than the service; empty if it did not.

    Args:
        history: all of it.
        notes: what the generator said of itself.
        release_at: monotonic seconds.
        spread_seconds: how long first clicks were planned for.
    """
    rush_end = release_at + spread_seconds
    first = [c for c in history.clicks if release_at <= c.planned_at <= rush_end]
    late_ms = sorted(1_000 * (c.sent_at - c.planned_at) for c in first)
    p99_ms = percentile(late_ms, 0.99) if late_ms else 0.0
    doubts = {
        f"only {len(first)} clicks": len(first) < CLICKS_MIN,
        f"{notes.missed} shoppers came into the lobby too late": notes.missed > 0,
        f"the generator used {notes.cores:.2f} of its one core": notes.cores > CORES_MAX,
        f"clicks left {p99_ms:.0f} ms (p99) after they were meant": p99_ms > LATENESS_P99_MS_MAX,
    }
    return [doubt for doubt, is_so in doubts.items() if is_so]
