"""What an operator may set about paid orders, whatever sale they are of."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class FulfilmentSettings:
    """How personal fields are sealed, and how much one pass of a worker does."""

    delivery_keys: str = field(default="", repr=False)  # [{kid, key, use}], 32 bytes, base64url
    reseal_rows_max: int = 200  # of one pass over one shard; each is locked until it commits
    confirm_orders_max: int = 500  # received by the clock, of one pass over one shard

    def __post_init__(self) -> None:
        assert 1 <= self.reseal_rows_max <= 10_000
        assert 1 <= self.confirm_orders_max <= 10_000
