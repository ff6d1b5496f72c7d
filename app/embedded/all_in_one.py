"""
Everything in one: the stores, the migrations, and every role, watched until told to stop.

`doorbuster up` and `doorbuster demo` both run this. Each role is a child with its settings in its
environment; secrets never stand on a command line, where every user of the machine reads them.

    lock -> ports -> stores -> migrate -> sandbox, coordinator, worker, api … -> run.json
"""

import os
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from app.embedded.errors import PortTaken
from app.embedded.lock import DataDirLock
from app.embedded.payment_keys import PaymentKeys, keep_payment_keys
from app.embedded.ports import LOCALHOST, free_port, hold_port, is_free
from app.embedded.probes import answers_ready, listens
from app.embedded.programs import run_to_end
from app.embedded.run_file import Pids, RunFile, remove_run_file, write_run_file
from app.embedded.run_secrets import RunSecrets, keep_secrets
from app.embedded.stores import EmbeddedStores
from app.embedded.supervisor import RoleRestarted, RoleSpec, Supervisor

# Two cores and more: beyond four processes the stores are what limits one machine.
API_PROCESSES_DEFAULT: Final = min(4, os.cpu_count() or 1)
PROGRAM: Final = (sys.executable, "-m", "app")
_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class UpOptions:
    """
    What `doorbuster up` may be told.

    Attributes:
        workers: api processes.
        port, admin_port: 0 picks a free one.
        redis_url, ledger_url: None: an embedded one is started.
        shard_urls: empty: two embedded ones are started.
        program: the command that plays the roles: `<program> serve`, `<program> worker`, …
    """

    workers: int = API_PROCESSES_DEFAULT
    port: int = 8080
    admin_port: int = 9090
    data_dir: Path = Path(".doorbuster")
    redis_url: str | None = None
    shard_urls: tuple[str, ...] = ()
    ledger_url: str | None = None
    program: tuple[str, ...] = PROGRAM


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """Where everything will be; fixed before the first role starts."""

    public_port: int
    admin_port: int
    sandbox_port: int
    redis: str
    redis_api: str
    shards: tuple[str, ...]
    ledger: str
    keys: RunSecrets
    payment_keys: PaymentKeys
    program: tuple[str, ...]
    data_dir: Path

    @property
    def public(self) -> str:
        return f"http://{LOCALHOST}:{self.public_port}"

    @property
    def admin(self) -> str:
        return f"http://{LOCALHOST}:{self.admin_port}"

    @property
    def sandbox(self) -> str:
        return f"http://{LOCALHOST}:{self.sandbox_port}"


@asynccontextmanager
async def everything_running(
    options: UpOptions, on_restart: Callable[[RoleRestarted], None]
) -> AsyncIterator[RunFile]:
    """
    Start everything, serve while the block runs, then drain and stop all of it in order.

    Args:
        options: see there.
        on_restart: told of each process that died and serves again; run.json is fresh by then.

    Yields:
        What run.json says when the service is ready; process ids change with restarts.

    Raises:
        PortTaken: before anything was started.
        DataDirInUse: another one runs on this data directory.
        RoleDidNotStart: a process ended or was too slow; what ran is stopped.
    """
    async with AsyncExitStack() as opened:
        lock = await opened.enter_async_context(DataDirLock(options.data_dir))
        public = opened.enter_context(hold_port(options.port, option="--port"))
        admin_port = _wanted_port(options.admin_port, option="--admin-port")
        told = _Told(on_restart)
        stores = await opened.enter_async_context(_stores(options, lock, told))
        plan = _plan(options, stores, public.getsockname()[1], admin_port, lock.data_dir)
        logs = lock.data_dir / "logs"
        await _migrate(plan, logs)
        roles = Supervisor(logs, told, inherited=(lock.descriptor,))
        await opened.enter_async_context(roles)
        await roles.start(*_roles(plan, options.workers))
        opened.callback(told.end)
        yield told.begin(lambda: _run_file(plan, stores, roles, lock.data_dir))


class _Told:
    """Keeps run.json in step with the process ids, then passes a restart on."""

    def __init__(self, on_restart: Callable[[RoleRestarted], None]) -> None:
        self._on_restart = on_restart
        self._describe: Callable[[], RunFile] | None = None

    def __call__(self, restarted: RoleRestarted) -> None:
        if self._describe is not None:
            write_run_file(self._describe())
        self._on_restart(restarted)

    def end(self) -> None:
        """Take run.json away: what is restarted while all is stopped is nobody's concern."""
        if self._describe is not None:
            remove_run_file(Path(self._describe().data_dir))
            self._describe = None

    def begin(self, describe: Callable[[], RunFile]) -> RunFile:
        """Write run.json now, and again after each restart."""
        self._describe = describe
        run = describe()
        write_run_file(run)
        return run


def ready_event(run: RunFile) -> dict[str, object]:
    """Give the fields of the line that `up --json` prints when ready (docs/INTERFACES.md §5)."""
    return {
        "event": "ready",
        "public": run.public,
        "admin": run.admin,
        "admin_token": run.admin_token,
        "sandbox": run.sandbox,
        "redis": run.redis,
        "shards": list(run.shards),
        "ledger": run.ledger,
        "pids": asdict(run.pids),
    }


def restarted_event(restarted: RoleRestarted) -> dict[str, object]:
    """Give the fields of the line that `up --json` prints when a role serves again."""
    return {"event": "restarted", "role": restarted.role, "pid": restarted.pid}


def _wanted_port(port: int, *, option: str) -> int:
    wanted = port or free_port()
    if not is_free(wanted):
        raise PortTaken(port=wanted, option=option)
    return wanted


def _stores(options: UpOptions, lock: DataDirLock, told: _Told) -> EmbeddedStores:
    return EmbeddedStores(
        options.data_dir,
        with_valkey=options.redis_url is None,
        with_postgres=not options.shard_urls or options.ledger_url is None,
        lock=lock,
        on_restart=told,
    )


def _plan(
    options: UpOptions, stores: EmbeddedStores, public_port: int, admin_port: int, data_dir: Path
) -> _Plan:
    return _Plan(
        public_port=public_port,
        admin_port=admin_port,
        sandbox_port=free_port(),
        redis=options.redis_url or stores.redis_url,
        redis_api=options.redis_url or stores.redis_api_url,
        shards=options.shard_urls or stores.shard_urls,
        ledger=options.ledger_url or stores.ledger_url,
        keys=keep_secrets(data_dir),
        payment_keys=keep_payment_keys(data_dir),
        program=options.program,
        data_dir=data_dir,
    )


async def _migrate(plan: _Plan, logs: Path) -> None:
    await run_to_end(
        (*plan.program, "migrate"), env=_environment(plan, {}), log=logs / "migrate.log"
    )


def _roles(plan: _Plan, api_processes: int) -> list[RoleSpec]:
    """List every role so that the reverse order is the order of stopping: api first."""
    ports = [free_port() for _ in range(2 + api_processes)]
    targets = _json([f"{LOCALHOST}:{port}" for port in ports])
    coordinator, worker, *api = ports
    return [
        _sandbox_role(plan),
        _watched_role(plan, "coordinator", command="coordinator", port=coordinator),
        _watched_role(plan, "worker", command="worker", port=worker),
        *(_api_role(plan, index, port, targets) for index, port in enumerate(api)),
    ]


def _sandbox_role(plan: _Plan) -> RoleSpec:
    return RoleSpec(
        role="sandbox",
        name="sandbox",
        argv=(*plan.program, "sandbox"),
        env=_environment(plan, _gateway_merchants(plan)),
        ready=lambda: listens(plan.sandbox_port),
    )


def _merchant_accounts(plan: _Plan) -> dict[str, str]:
    """Tell the service's own roles who we are at the gateway, with our side's keys."""
    keys = plan.payment_keys
    return {
        "DOORBUSTER_PAYMENTS__WECHATPAY": _json([keys.wechatpay_account(plan.sandbox)]),
        "DOORBUSTER_PAYMENTS__ALIPAY": _json([keys.alipay_account(plan.sandbox)]),
    }


def _gateway_merchants(plan: _Plan) -> dict[str, str]:
    """Tell the gateway, and nobody else, the keys of its own side."""
    keys = plan.payment_keys
    return {
        "DOORBUSTER_SANDBOX__WECHATPAY": _json([keys.wechatpay_merchant_document()]),
        "DOORBUSTER_SANDBOX__ALIPAY": _json([keys.alipay_merchant_document()]),
    }


def _api_role(plan: _Plan, index: int, port: int, targets: str) -> RoleSpec:
    extra = {
        "DOORBUSTER_PROCESS__INDEX": str(index),
        "DOORBUSTER_PROCESS__METRICS_TARGETS": targets,
    }
    spec = _watched_role(plan, "api", command="serve", port=port, extra=extra)
    if index == 0:  # the one that has the admin listener
        spec = replace(spec, ready=lambda: answers_ready(plan.admin_port))
    return replace(spec, name=f"api-{index}")


def _watched_role(
    plan: _Plan, role: str, *, command: str, port: int, extra: Mapping[str, str] = _NOTHING
) -> RoleSpec:
    """Describe a role that serves its metrics on a port of its own: once it does, it is ready."""
    return RoleSpec(
        role=role,
        name=role,
        argv=(*plan.program, command),
        env=_environment(
            plan,
            {
                **_merchant_accounts(plan),
                **extra,
                "DOORBUSTER_PROCESS__METRICS_PORT": str(port),
            },
        ),
        ready=lambda: listens(port),
    )


def _environment(plan: _Plan, extra: Mapping[str, str]) -> dict[str, str]:
    """
    Give a role its settings, and whatever this process was given.

    Nothing is read from the environment here (that is settings.py's part): it is handed on.
    """
    return {
        "DOORBUSTER_PAYMENTS__BANK_ACCOUNT": "DEMO 0000 0000 0000",  # or a given one
        **os.environ,
        "DOORBUSTER_EMBEDDED": "1",
        "DOORBUSTER_REDIS__URL": plan.redis,
        "DOORBUSTER_REDIS__API_URL": plan.redis_api,
        "DOORBUSTER_POSTGRES__SHARD_URLS": _json(plan.shards),
        "DOORBUSTER_POSTGRES__LEDGER_URL": plan.ledger,
        "DOORBUSTER_AUTH__KEYS": _json([plan.keys.auth_key]),
        "DOORBUSTER_AUTH__OPERATORS": _json(
            [{"token": plan.keys.admin_token, "scope": "operator", "name": "up"}]
        ),
        "DOORBUSTER_ORDERS__ID_KEY": plan.keys.order_id_key,
        "DOORBUSTER_FULFILMENT__DELIVERY_KEYS": _json([plan.keys.delivery_key]),
        "DOORBUSTER_WEB__HOST": LOCALHOST,
        "DOORBUSTER_WEB__PORT": str(plan.public_port),
        "DOORBUSTER_WEB__ADMIN_PORT": str(plan.admin_port),
        "DOORBUSTER_PAYMENTS__SANDBOX_URL": plan.sandbox,
        "DOORBUSTER_PAYMENTS__SANDBOX_KEY": plan.keys.sandbox_key,
        "DOORBUSTER_PAYMENTS__CALLBACK_URL": f"{plan.public}/v1/callbacks",
        "DOORBUSTER_SANDBOX__PORT": str(plan.sandbox_port),
        "DOORBUSTER_SANDBOX__JOURNAL_DIR": str(plan.data_dir / "sandbox"),
        **extra,
    }


def _json(content: object) -> str:
    return msgspec.json.encode(content).decode()


def _run_file(plan: _Plan, stores: EmbeddedStores, roles: Supervisor, data_dir: Path) -> RunFile:
    return RunFile(
        public=plan.public,
        admin=plan.admin,
        admin_token=plan.keys.admin_token,
        sandbox=plan.sandbox,
        redis=plan.redis,
        redis_api=plan.redis_api,
        shards=plan.shards,
        ledger=plan.ledger,
        auth_keys=(plan.keys.auth_key,),
        data_dir=str(data_dir),
        pids=Pids(
            supervisor=os.getpid(),
            valkey=stores.pids.get("valkey"),
            postgres=stores.pids.get("postgres"),
            coordinator=roles.pids("coordinator")[0],
            api=roles.pids("api"),
            worker=roles.pids("worker"),
        ),
    )
