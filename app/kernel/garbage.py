"""The collector of cycles, told what a serving process is like."""

import gc
from typing import Final

# Nearly all that a click leaves behind is freed by reference count. The default looks for
# cycles after every 700 objects, hundreds of times a second, and finds none.
_YOUNG_MAX: Final = 50_000


def settle_garbage() -> None:
    """
    Take what start-up has made for immortal, and look for cycles seldom.

    Call it once, when the process is ready to serve. Measured on the api: 3 to 4 of 100
    samples were the collector's before.
    """
    gc.collect()
    gc.freeze()
    _, middle, old = gc.get_threshold()
    gc.set_threshold(_YOUNG_MAX, middle, old)
