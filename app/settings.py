"""
Every setting: read once, into the groups that the stages declare.

A variable is `DOORBUSTER_<STAGE>__<NAME>`, derived from the groups themselves:
the stage is a field of `Settings`, a group within a stage leads the name
(`DOORBUSTER_ORDERS__FLUSHER_ENTRIES_MAX`). Below the environment stands
`doorbuster.toml` with one table per stage, below that the default beside the
code. All mistakes are reported at once, as sentences; no secret is ever told.
"""

import dataclasses
import os
import tomllib
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from app.admission.settings import AuthSettings
from app.fulfilment.settings import FulfilmentSettings
from app.inventory.coordinator import CoordinatorSettings
from app.inventory.mover import MoverSettings
from app.kernel.errors import BadConfiguration
from app.kernel.failpoints import Failpoint
from app.orders.closer import CloserSettings
from app.orders.events.settings import EventSettings
from app.orders.flusher import FlusherSettings
from app.orders.groups.settling import GroupSettings
from app.orders.selling import PlacementSettings
from app.payments.settings import PaymentSettings, RoutingSettings
from app.sales.routes import SaleSettings
from app.settlement.poster import SettlementSettings
from app.storage.shards import DatabaseSettings
from app.web.settings import WebSettings

PREFIX: Final = "DOORBUSTER_"
FILE_NAME: Final = "doorbuster.toml"
SECRET: Final = "<secret>"  # noqa: S105  what is printed instead of one
_SECRET_WORDS: Final = frozenset({"key", "keys", "operators", "url", "urls"})


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisSettings:
    """Where stock and streams are."""

    url: str = field(default="", repr=False)  # all rights: coordinator, workers, operators
    api_url: str = field(default="", repr=False)  # the api's rights; empty: the same as url
    deployment: str = "doorbuster"  # the first part of every key's name


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresSettings:
    """Where rows are."""

    shard_urls: tuple[str, ...] = field(default=(), repr=False)  # in the shard map's order
    ledger_url: str = field(default="", repr=False)
    database: DatabaseSettings = field(default_factory=DatabaseSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class InventorySettings:
    """How buckets are looked after."""

    coordinator: CoordinatorSettings = field(default_factory=CoordinatorSettings)
    mover: MoverSettings = field(default_factory=MoverSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrdersSettings:
    """How orders are placed, flushed and closed."""

    id_key: str = field(default="", repr=False)  # 16 bytes in hex, fixed for the deployment's life
    placement: PlacementSettings = field(default_factory=PlacementSettings)
    flusher: FlusherSettings = field(default_factory=FlusherSettings)
    closer: CloserSettings = field(default_factory=CloserSettings)
    events: EventSettings = field(default_factory=EventSettings)
    groups: GroupSettings = field(default_factory=GroupSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class PaymentsSettings:
    """Which providers there are, and how payments go."""

    sandbox_url: str = ""  # of the sandbox gateway; empty: no such provider
    sandbox_key: str = field(default="", repr=False)  # shared with it
    callback_url: str = ""  # of /v1/callbacks, as providers reach it
    bank_account: str = ""  # shown to who pays by bank transfer; empty: no such way to pay
    # Merchant accounts, one document each; the shape is the provider's own.
    wechatpay: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    alipay: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    unionpay: tuple[dict[str, Any], ...] = field(default=(), repr=False)
    flow: PaymentSettings = field(default_factory=PaymentSettings)
    routing: RoutingSettings = field(default_factory=RoutingSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxRoleSettings:
    """Where the sandbox gateway listens."""

    host: str = "127.0.0.1"
    port: int = 8081
    journal_dir: str = ".doorbuster/sandbox"
    clock_factor: int = 60  # how much faster than a real gateway it repeats callbacks
    wechatpay: str = field(default="", repr=False)  # JSON list: its merchants over WeChat Pay
    alipay: str = field(default="", repr=False)  # JSON list: its merchants over Alipay
    fee_bps: int = 60  # what its bills charge of a payment


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What this one process is told about itself."""

    index: int = 0  # of several api processes; the first one has the admin listener
    metrics_port: int = 0  # 0: no metrics listener of its own
    metrics_targets: tuple[str, ...] = ()  # host:port of every process, for /metrics/targets
    failpoints: tuple[Failpoint, ...] = ()  # where it fails on purpose; embedded mode only


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Every setting of one process."""

    embedded: bool = False  # stores and secrets made by `up`; short deadlines are allowed
    process: ProcessSettings = field(default_factory=ProcessSettings)
    redis: RedisSettings = field(default_factory=RedisSettings)
    postgres: PostgresSettings = field(default_factory=PostgresSettings)
    web: WebSettings = field(default_factory=WebSettings)
    auth: AuthSettings = field(default_factory=AuthSettings)
    sales: SaleSettings = field(default_factory=SaleSettings)
    inventory: InventorySettings = field(default_factory=InventorySettings)
    orders: OrdersSettings = field(default_factory=OrdersSettings)
    payments: PaymentsSettings = field(default_factory=PaymentsSettings)
    fulfilment: FulfilmentSettings = field(default_factory=FulfilmentSettings)
    settlement: SettlementSettings = field(default_factory=SettlementSettings)
    sandbox: SandboxRoleSettings = field(default_factory=SandboxRoleSettings)


def read_settings(environment: Mapping[str, str] | None = None, folder: Path = Path()) -> Settings:
    """
    Read every setting.

    Args:
        environment: None reads this process's own.
        folder: where doorbuster.toml may lie.

    Raises:
        BadConfiguration: every mistake at once, one sentence each.
    """
    given = _from_file(folder / FILE_NAME)
    source = os.environ if environment is None else environment
    given |= {name: text for name, text in source.items() if name.startswith(PREFIX)}
    mistakes: list[str] = []
    settings = _build(Settings, PREFIX, given, mistakes)
    mistakes += [f"{name} is not a setting" for name in sorted(given.keys() - set(_names()))]
    if isinstance(settings, Settings) and settings.process.failpoints and not settings.embedded:
        mistakes.append(f"{PREFIX}PROCESS__FAILPOINTS is refused outside embedded mode")
    if mistakes or settings is None:
        raise BadConfiguration(settings="; ".join(mistakes))
    return typing.cast("Settings", settings)


def require(settings: Settings, *names: str) -> None:
    """
    Refuse to start without these settings.

    Raises:
        BadConfiguration: all that are empty, by the names of their variables.
    """
    values = dict(describe(settings, show_secrets=True))
    missing = [name for name in names if not values[name]]
    if missing:
        raise BadConfiguration(settings="; ".join(f"{name} is not set" for name in missing))


def describe(settings: Settings, *, show_secrets: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield every variable's name and value; secrets as <secret>."""
    for name, holder, one in _leaves(settings, PREFIX):
        value = getattr(holder, one.name)
        hidden = value and not show_secrets and _is_secret(one)
        yield name, SECRET if hidden else value


def _names() -> Iterator[str]:
    return (name for name, _, _ in _leaves(Settings(), PREFIX))


def _leaves(group: Any, prefix: str) -> Iterator[tuple[str, Any, dataclasses.Field[Any]]]:  # noqa: ANN401  a group
    """Yield (variable, group, field) of every plain field, groups within groups unfolded."""
    for one in dataclasses.fields(group):
        value = getattr(group, one.name)
        name = prefix + one.name.upper()
        if dataclasses.is_dataclass(value):
            yield from _leaves(value, _inner(prefix, one.name))
        else:
            yield name, group, one


def _inner(prefix: str, name: str) -> str:
    """Spell the start of a group's variables: two underscores after the stage alone."""
    return f"{prefix}{name.upper()}{'__' if prefix == PREFIX else '_'}"


def _build(
    group: type[Any], prefix: str, given: Mapping[str, object], mistakes: list[str]
) -> object | None:
    """Make one group; note what is wrong and go on, so that all mistakes are told."""
    hints = typing.get_type_hints(group)
    values: dict[str, object] = {}
    before = len(mistakes)
    for one in dataclasses.fields(group):
        kind = hints[one.name]
        name = prefix + one.name.upper()
        if dataclasses.is_dataclass(kind):
            values[one.name] = _build(
                typing.cast("type[Any]", kind), _inner(prefix, one.name), given, mistakes
            )
        elif name in given:
            values[one.name] = _convert(name, given[name], kind, mistakes, secret=_is_secret(one))
    if len(mistakes) > before:
        return None
    try:
        return typing.cast("object", group(**values))
    except (AssertionError, TypeError):
        told = ", ".join(f"{prefix}{one.upper()}" for one in values) or group.__name__
        mistakes.append(f"one of these is out of its bounds: {told}")
        return None


def _convert(
    name: str,
    value: object,
    kind: Any,  # noqa: ANN401  what a field is declared as
    mistakes: list[str],
    *,
    secret: bool,
) -> object:
    """Read one value; lists come as JSON from the environment."""
    is_list = isinstance(kind, types.GenericAlias)
    try:
        if is_list and isinstance(value, str):
            value = msgspec.json.decode(value)
        return typing.cast("object", msgspec.convert(value, kind, strict=False))
    except (msgspec.ValidationError, msgspec.DecodeError) as error:
        shown = SECRET if secret else repr(value)
        mistakes.append(f"{name}={shown}: {error}")
        return None


def _is_secret(one: dataclasses.Field[Any]) -> bool:
    return not one.repr or not _SECRET_WORDS.isdisjoint(one.name.split("_"))


def _from_file(path: Path) -> dict[str, object]:
    """Read doorbuster.toml, one table per stage, as if it were variables."""
    if not path.is_file():
        return {}
    try:
        told = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadConfiguration(file=str(path), why=str(error)) from error
    given: dict[str, object] = {}
    for stage, table in told.items():
        if isinstance(table, dict):
            given |= {f"{PREFIX}{stage}__{name}".upper(): value for name, value in table.items()}
        else:
            given[f"{PREFIX}{stage}".upper()] = table
    return given
