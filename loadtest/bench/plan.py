"""The order of a run: every variant has its turn in every round."""

from collections.abc import Callable

from loadtest.bench import variants
from loadtest.bench.measurement import Measurement
from loadtest.bench.rig import Rig

Say = Callable[[str], None]

ON_ONE_STAND = frozenset("cde")


async def play(rig: Rig, say: Say) -> None:
    """
    Measure everything that was asked for.

    Args:
        rig: collects the figures.
        say: told of each figure as it comes.
    """
    wanted = frozenset(rig.options.only)
    for number in range(1, rig.options.rounds + 1):
        rig.round = number
        say(f"round {number} of {rig.options.rounds}")
        before = len(rig.done)
        await _play_round(rig, wanted)
        for figure in rig.done[before:]:
            say(line_of(figure))


async def _play_round(rig: Rig, wanted: frozenset[str]) -> None:
    await variants.measure_ceiling(rig)
    if "a" in wanted:
        await variants.measure_bare(rig)
    if "b" in wanted:
        await variants.measure_per_request(rig)
    if wanted & ON_ONE_STAND:
        await _play_on_one_stand(rig, wanted)


async def _play_on_one_stand(rig: Rig, wanted: frozenset[str]) -> None:
    async with rig.stand() as stand:
        sold = await variants.measure_selling(rig, stand)
        if "d" in wanted:
            await variants.measure_sold_out(rig, stand)
        if "e" in wanted:
            await variants.measure_replays(rig, stand, sold)


def line_of(figure: Measurement) -> str:
    """Tell one figure in one line."""
    used = ", ".join(f"{name} {us:.0f}" for name, us in figure.cpu_us.items())
    broken = f"  BROKEN: {'; '.join(figure.broken)}" if figure.broken else ""
    return (
        f"  {figure.variant:8}{figure.per_second:8,.0f} {figure.counted}/s  us each: {used};"
        f"  p99 {figure.numbers.get('p99_ms', 0):.1f} ms;"
        f"  cores: generator {figure.generator_cores:.2f}, not ours {figure.cores['other']:.2f}"
        f"{broken}"
    )
