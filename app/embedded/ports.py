"""
Ports of this machine.

A port that must stay the same over a restart is taken from below the range from which the kernel
serves outgoing connections (32768 and up on Linux). Inside that range a client that keeps knocking
while the server is away can be given the very same port as its own source: it then connects to
itself, and the server finds its port taken.
"""

import random
import socket
from typing import Final

from app.embedded.errors import PortTaken

LOCALHOST: Final = "127.0.0.1"
FIRST_PORT, LAST_PORT = 20_000, 32_000
TRIES_MAX: Final = 200  # a machine with so many taken ports in a row has another trouble


def is_free(port: int, host: str = LOCALHOST) -> bool:
    """Whether nobody listens there now; connections in TIME_WAIT do not count."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def free_port() -> int:
    """Pick a free port below the kernel's own range."""
    for _ in range(TRIES_MAX):
        port = random.randint(FIRST_PORT, LAST_PORT)  # noqa: S311  not a secret
        if is_free(port):
            return port
    raise PortTaken(port=LAST_PORT, option="--port")


def kept_port(noted: int) -> int:
    """Give the port of the last run while it is free: clients know it. 0: none noted."""
    return noted if noted and is_free(noted) else free_port()


def hold_port(port: int, *, option: str, host: str = LOCALHOST) -> socket.socket:
    """
    Take a public port for processes that will share it by SO_REUSEPORT.

    The socket is bound and never listens: it gets no connection, and while it is open nobody else
    can slip in between two restarts of an api process.

    Args:
        port: 0 picks a free one.
        option: the command-line option to name when the port is taken.
        host: an IPv4 address of this machine.

    Raises:
        PortTaken: somebody else listens there.
    """
    wanted = port or free_port()
    if not is_free(wanted, host):
        raise PortTaken(port=wanted, option=option)
    held = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        _bind(held, (host, wanted))
    except OSError as exc:
        held.close()
        raise PortTaken(port=wanted, option=option) from exc
    return held


def _bind(held: socket.socket, address: tuple[str, int]) -> None:
    """
    Bind without SO_REUSEADDR, so that `is_free` sees the port as taken.

    Old connections of another program in TIME_WAIT would forbid that; then with it.
    """
    try:
        held.bind(address)
    except OSError:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(address)
