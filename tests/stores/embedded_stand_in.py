"""
A program that plays every role as far as `up` can see one: it listens where it is told to.

Run as `python embedded_stand_in.py ROLE`, ROLE as in PORTS; SIGTERM ends it.
"""

import asyncio
import os
import signal
import sys

PORTS = {
    "serve": ("DOORBUSTER_PROCESS__METRICS_PORT", "DOORBUSTER_WEB__PORT"),
    "worker": ("DOORBUSTER_PROCESS__METRICS_PORT",),
    "coordinator": ("DOORBUSTER_PROCESS__METRICS_PORT",),
    "sandbox": ("DOORBUSTER_SANDBOX__PORT",),
    "migrate": (),
}


async def answer(reader, writer):
    await reader.readuntil(b"\r\n\r\n")
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    writer.close()


async def play(role):
    names = list(PORTS[role])
    if os.environ.get("DOORBUSTER_PROCESS__INDEX") == "0":
        names.append("DOORBUSTER_WEB__ADMIN_PORT")
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    for name in names:
        is_shared = name == "DOORBUSTER_WEB__PORT"
        port = int(os.environ[name])
        await asyncio.start_server(answer, "127.0.0.1", port, reuse_port=is_shared)
    if names:
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(play(sys.argv[1]))
