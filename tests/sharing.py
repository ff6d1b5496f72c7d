"""
Which tests are played by one process, when several play the suite.

To start a service takes nine seconds of a processor, and to keep it idle a
seventh of one: so one process plays all that asks the running service of a
folder. Elsewhere a file is what goes together, so that its fixtures are made once.
"""

from typing import Final

from xdist.scheduler import LoadScopeScheduling

ASKS_THE_CONTRACTS_SERVICE: Final = ("tests/contract/",)
ASKS_THE_JOURNEYS_SERVICE: Final = ("tests/browser/", "tests/journeys/")
ASKS_THE_FAULTS_SITE: Final = ("tests/faults/test_",)
# Journeys that start services of their own, and may do so wherever there is room.
STARTS_ITS_OWN: Final = (
    "tests/journeys/test_counts.py",
    "tests/journeys/test_demo.py",
    "tests/journeys/test_kills.py",
    "tests/journeys/test_stops.py",
)


class SharingScheduler(LoadScopeScheduling):  # type: ignore[misc]  xdist tells no types
    """Gives out what goes together, in the order of collection, to whoever has room."""

    def _split_scope(self, nodeid: str) -> str:
        return companions_of(nodeid)


def companions_of(nodeid: str) -> str:
    """Name what a test goes together with."""
    path, _, _ = nodeid.partition("::")
    if path.startswith(ASKS_THE_CONTRACTS_SERVICE):
        return "contract"
    if path.startswith(ASKS_THE_JOURNEYS_SERVICE) and path not in STARTS_ITS_OWN:
        return "journeys"
    if path.startswith(ASKS_THE_FAULTS_SITE):
        return "faults"
    return path
