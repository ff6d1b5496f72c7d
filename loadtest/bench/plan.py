"""The order of a run: every variant has its turn in every round."""

from collections.abc import Awaitable, Callable
from typing import Final

from app.kernel.errors import DoorbusterError
from loadtest.bench import callbacks, lasting, ledger, pressure, variants
from loadtest.bench.measurement import Measurement
from loadtest.bench.rig import Rig
from loadtest.bench.stand import NotMeasured

Say = Callable[[str], None]

# By the names that --only takes, in the order in which they are played.
NAMES: Final = ("a", "b", "c", "d", "e", "f", "g", "durable", "h", "i", "j", "k")
ON_ONE_STAND: Final = frozenset("cdefg")


async def play(rig: Rig, say: Say) -> None:
    """
    Measure everything that was asked for.

    Args:
        rig: collects the figures.
        say: told of each figure as it comes.
    """
    rig.say = lambda figure: say(line_of(figure))
    for number in range(1, rig.options.rounds + 1):
        rig.round = number
        say(f"round {number} of {rig.options.rounds}")
        await _play_round(rig)


async def _play_round(rig: Rig) -> None:
    await variants.measure_ceiling(rig)
    await _play_if(rig, "a", variants.measure_bare)
    await _play_if(rig, "b", variants.measure_per_request)
    if rig.options.only & ON_ONE_STAND:
        await _play_if(rig, "", _play_on_one_stand)
    if rig.round <= rig.options.long_rounds:
        await _play_if(rig, "g", pressure.measure_refusal)
        await _play_if(rig, "durable", lasting.measure_durable)
        await _play_if(rig, "h", lasting.measure_burst)
    if rig.round == rig.options.rounds:
        await _play_if(rig, "i", lasting.measure_growth)
    await _play_if(rig, "j", ledger.measure_ledger)
    await _play_if(rig, "k", callbacks.measure_callbacks)


async def _play_on_one_stand(rig: Rig) -> None:
    """Play what needs the rate of (c), or its orders, on the service that has them."""
    async with rig.stand() as stand:
        sold = await variants.measure_selling(rig, stand)
        await _play_if(rig, "d", lambda rig: variants.measure_sold_out(rig, stand))
        await _play_if(rig, "e", lambda rig: variants.measure_replays(rig, stand, sold))
        await _play_if(rig, "f", lambda rig: pressure.measure_open_loop(rig, stand))
        if rig.round <= rig.options.long_rounds:
            await _play_if(rig, "g", lambda rig: pressure.measure_overload(rig, stand))


async def _play_if(rig: Rig, name: str, measure: Callable[[Rig], Awaitable[None]]) -> None:
    """Play a variant that is wanted; one that comes to no figure does not end the run."""
    if name and name not in rig.options.only:
        return
    try:
        await measure(rig)
    except (NotMeasured, DoorbusterError) as reason:
        rig.not_measured.append(f"round {rig.round}, {name or 'c'}: {reason}")


def line_of(figure: Measurement) -> str:
    """Tell one figure in one line."""
    used = ", ".join(f"{name} {us:.0f}" for name, us in figure.cpu_us.items())
    more = ", ".join(f"{name} {number:,.4g}" for name, number in figure.numbers.items())
    broken = f"  BROKEN: {'; '.join(figure.broken)}" if figure.broken else ""
    return (
        f"  {figure.variant:9}{figure.per_second:8,.0f} {figure.counted}/s;  us each: {used};"
        f"  {more};"
        f"  cores: generator {figure.generator_cores:.2f}, not ours {figure.cores['other']:.2f}"
        f"{broken}"
    )
