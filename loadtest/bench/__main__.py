"""`python -m loadtest.bench`, which is `make bench`: every figure of docs/BENCHMARKS.md."""

import signal
import sys
import time
from pathlib import Path
from typing import Final

import click
import uvloop

from loadtest.bench.generator import Generators
from loadtest.bench.plan import NAMES, play
from loadtest.bench.report import judge, write_report
from loadtest.bench.rig import BenchOptions, Rig

NO_SUCH_VARIANT: Final = "--only knows no {}"


@click.command()
@click.option("--only", default=",".join(NAMES), show_default=True, help="Variants to play.")
@click.option("--seconds", type=float, help="Of one measured window.  [5; quick: 2]")
@click.option("--rounds", type=click.IntRange(1, 99), help="Turns of each.  [5; quick: 2]")
@click.option("--quick", is_flag=True, help="Under three minutes: shorter, fewer, no million.")
@click.option("--connections", type=click.IntRange(1, 10_000), default=256, show_default=True)
@click.option("--api", type=click.IntRange(1, 64), default=2, show_default=True)
@click.option("--generators", type=click.IntRange(1, 16), default=1, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder.  [runs/bench-<time>]")
def main(  # noqa: PLR0913, PLR0917  click gives each option its argument
    only: str,
    seconds: float | None,
    rounds: int | None,
    quick: bool,  # noqa: FBT001
    connections: int,
    api: int,
    generators: int,
    out: Path | None,
) -> None:
    """
    Measure the service beside its rivals, in one run on one machine.

    Exit codes: 0 measured, 1 a variant came to no figure, 3 an audit is broken,
    4 the generator was saturated and the ratios are worth nothing.
    """
    options = BenchOptions(
        only=_chosen(only),
        seconds=seconds or (2.0 if quick else 5.0),
        durable_seconds=10.0 if quick else 35.0,
        rounds=rounds or (2 if quick else 5),
        long_rounds=1 if quick else 3,
        connections=connections,
        api_processes=api,
        generators=generators,
        burst_orders=20_000 if quick else 100_000,
        callbacks=4_000 if quick else 10_000,
        growth_orders=(10_000, 100_000) if quick else (10_000, 100_000, 1_000_000),
    )
    folder = out or Path("runs") / time.strftime("bench-%Y%m%d-%H%M%S")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rig = Rig(options, Generators(options.generators))
    try:
        uvloop.run(_measure(rig))
    finally:  # a run that was interrupted has measured something
        if rig.done:
            write_report(rig, folder, command=f"make bench ARGS={' '.join(sys.argv[1:])!r}")
    sys.exit(judge(rig))


def _chosen(only: str) -> frozenset[str]:
    names = frozenset(name.strip() for name in only.split(",") if name.strip())
    if unknown := sorted(names - set(NAMES)):
        raise click.UsageError(NO_SUCH_VARIANT.format(", ".join(unknown)))
    return names


async def _measure(rig: Rig) -> None:
    async with rig.generators:
        await play(rig, _say)


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
