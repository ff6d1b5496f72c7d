"""
Play one role on a clock that is wrong: `wrong_clock.py SECONDS ROLE`.

Only what tells the time of day is moved; the monotonic clock of a machine is never wrong.
"""

import sys
import time


def shift_clock(seconds: int) -> None:
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + seconds
    time.time_ns = lambda: right_ns() + seconds * 1_000_000_000


if __name__ == "__main__":
    shift_clock(int(sys.argv[1]))
    from app.__main__ import main  # after the clock, so that nobody has kept the right one

    sys.argv = ["doorbuster", sys.argv[2]]
    main()
