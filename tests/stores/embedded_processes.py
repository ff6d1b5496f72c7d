"""What the tests of the embedded stores ask about processes; and scripts that run in their own."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from app.embedded.account import Account, can_reach
from tests.waiting import eventually

HERE: Final = Path(__file__).parent
REPOSITORY: Final = HERE.parents[1]
NOBODY: Final = Account(65_534, 65_534)

# Starts the stores of one data directory, says where they are, and stays until its input ends.
RUN_STORES: Final = """
import asyncio, json, sys
from pathlib import Path
from app.embedded.stores import EmbeddedStores

async def run():
    async with EmbeddedStores(Path(sys.argv[1])) as stores:
        told = {"redis": stores.redis_url, "ledger": stores.ledger_url, "pids": stores.pids}
        print(json.dumps(told), flush=True)
        await asyncio.to_thread(sys.stdin.read)

asyncio.run(run())
"""

# The same as an ordinary user. The Python of the tests may lie where that user may not go, so the
# change is made after everything is imported, and the children get a Python they can execute.
RUN_STORES_AS_NOBODY: Final = f"""
import encodings.idna, json, os, sys
from app.embedded.stores import EmbeddedStores

os.setgroups([])
os.setgid({NOBODY.gid})
os.setuid({NOBODY.uid})
sys.executable = sys.argv[2]
{RUN_STORES}
"""

# `doorbuster up --json`, with a stand-in for the roles.
RUN_UP: Final = f"""
import asyncio, sys
from pathlib import Path
from app.cli.up import JsonLines, serve_until_told
from app.embedded.all_in_one import UpOptions

program = (sys.executable, {str(HERE / "embedded_stand_in.py")!r})
options = UpOptions(workers=2, port=0, admin_port=0, data_dir=Path(sys.argv[1]), program=program)
sys.exit(128 + asyncio.run(serve_until_told(options, JsonLines())))
"""


def noted_folder(data_dir):
    """Where root has put the Postgres of a data directory; empty when it is inside."""
    notes = data_dir / "stores.json"
    return json.loads(notes.read_text())["postgres_folder"] if notes.exists() else ""


def forget_postgres(data_dir):
    """Remove what a service that was killed has left outside of its data directory."""
    if folder := noted_folder(data_dir):
        shutil.rmtree(folder)


def exists(pid):
    """Whether the process is there and is more than an entry that waits for its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


async def eventually_gone(*pids):
    await eventually(lambda: not any(map(exists, pids)))


async def start_script(script, *arguments):
    """Run a script in a process of its own; its standard input stays open."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", script, *map(str, arguments)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, sys.path)])},
        cwd="/",
    )


async def end_script(process):
    """Let a script end by itself, and tell its exit code."""
    await process.communicate(b"")
    return process.returncode


def python_for(account):
    """Give a Python that the account may execute; None: there is none, or it cannot reach us."""
    candidates = (Path(sys.executable), Path("/usr/bin/python3"))
    fit = (path for path in candidates if path.exists() and can_reach(account, path, HERE))
    return next(fit, None)
