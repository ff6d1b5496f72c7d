"""What the lab and the Locust process tell each other, in two small files."""

from pathlib import Path

import msgspec

from loadtest.history import SaleTerms
from loadtest.plan import Visit


class LobbyPlan(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the parent process tells Locust; holds tokens, so only its owner may read it.

    Attributes:
        scenario: name of a module in `loadtest.scenarios`.
        gateway_url: of the sandbox, where orders are paid; empty where nobody pays.
        release_at: monotonic seconds, which processes of one machine share.
        history_path: where the clicks go.
        generator_path: where `GeneratorNotes` go.
    """

    scenario: str
    gateway_url: str
    release_at: float
    sales: list[SaleTerms]
    visits: list[Visit]
    tokens: dict[str, str]
    history_path: str
    generator_path: str


class GeneratorNotes(msgspec.Struct, frozen=True, kw_only=True):
    """
    What the generator says of itself.

    Attributes:
        cores: how much of a core it used from the release to the last answer.
        missed: visits that came into the lobby after their planned instant.
        gave_up: orders that were not settled in time.
    """

    cores: float
    missed: int
    gave_up: int = 0


def write_plan(path: Path, plan: LobbyPlan) -> None:
    """Write a plan that only its owner may read: it holds tokens."""
    path.touch(mode=0o600)
    path.write_bytes(msgspec.json.encode(plan))


def read_plan(path: Path) -> LobbyPlan:
    return msgspec.json.decode(path.read_bytes(), type=LobbyPlan)


def read_notes(path: Path) -> GeneratorNotes:
    return msgspec.json.decode(path.read_bytes(), type=GeneratorNotes)
