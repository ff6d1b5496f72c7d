"""
A real browser, driven over W3C WebDriver by Chromium's own driver.

ChromeDriver is the driver: it is built, tested and released with the browser and speaks a
W3C Recommendation. What is left of a client library are the handful of requests
below, so none is installed (docs/decisions/0037-browser.md).

Source:
    W3C WebDriver (Recommendation); ChromeDriver, "Logging" and "Chrome DevTools Protocol
    commands" (`se/log`, `goog/cdp/execute`).
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import aiohttp

from app.embedded.programs import leashed

PROGRAMS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ANSWER_SECONDS: Final = 30.0
FLAGS: Final = (
    "--headless",
    "--disable-gpu",
    "--disable-dev-shm-usage",  # containers give it 64 MB
    # A browser that was never used asks its maker many things; none of them is ours.
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
)
_LISTENS: Final = re.compile(rb"started successfully on port (\d+)")
_ELEMENT: Final = "element-6066-11e4-a52e-4f735466cecf"  # the key that the standard names
# Browsers ask any host for it by themselves, and the service has no pages of its own.
_ICON: Final = "/favicon.ico"


class Programs(NamedTuple):
    """What a browser is run with."""

    browser: str
    driver: str


class NoBrowser(Exception):
    """There is no browser here; says which programs are missing."""


class Refused(Exception):
    """The driver did not do what it was asked; says why, in the driver's words."""

    def __init__(self, command: str, told: dict[str, str]) -> None:
        super().__init__(f"{command}: {told['error']}: {told['message']}")


def find_programs() -> Programs:
    """
    Find a browser and its driver.

    Raises:
        NoBrowser: one of the two is not installed.
    """
    browser = next(filter(None, map(shutil.which, PROGRAMS)), None)
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        told = "needs Chromium and ChromeDriver (Debian: chromium and chromium-driver)"
        raise NoBrowser(told)
    return Programs(browser, driver)


class Browser:
    """One empty profile with one window."""

    def __init__(self, client: aiohttp.ClientSession, session: str) -> None:
        self._client = client
        self._session = session
        self._requests: list[dict[str, Any]] = []

    async def open(self, url: str) -> None:
        """Go to a page, and wait until it is there."""
        await self._post("url", url=url)

    async def text(self, selector: str) -> str:
        """Read an element as it is drawn; empty while there is none."""
        # In one step: between finding and reading the page may go.
        return (
            await self.run("return document.querySelector(arguments[0])?.innerText", selector) or ""
        )

    async def count(self, selector: str) -> int:
        """Count elements."""
        return await self.run("return document.querySelectorAll(arguments[0]).length", selector)

    async def press(self, selector: str) -> None:
        """Click on an element: it has to be visible, and nothing may lie over it."""
        element = await self._post("element", using="css selector", value=selector)
        await self._post(f"element/{element[_ELEMENT]}/click")

    async def run(self, script: str, *arguments: object) -> Any:
        """Run the body of a function in the page, and wait for what it returns or promises."""
        return await self._post("execute/sync", script=script, args=list(arguments))

    async def send_always(self, **headers: str) -> None:
        """Add headers to whatever the page asks for from now on."""
        await self._post(
            "goog/cdp/execute", cmd="Network.setExtraHTTPHeaders", params={"headers": headers}
        )

    async def complaints(self) -> list[str]:
        """Return what the console has said since the last time, but for the missing icon."""
        lines = await self._post("se/log", type="browser")
        return [line["message"] for line in lines if _ICON not in line["message"]]

    async def asked(self) -> list[str]:
        """Return every URL that was asked for over a network, from the first on."""
        lines = await self._post("se/log", type="performance")
        events = [json.loads(line["message"])["message"] for line in lines]
        self._requests += [
            one["params"] for one in events if one["method"] == "Network.requestWillBeSent"
        ]
        urls = [one["request"]["url"] for one in self._requests]
        return [url for url in urls if urlsplit(url).scheme in {"http", "https", "ws", "wss"}]

    async def hosts(self) -> set[str]:
        """Return whom the browser has asked for anything."""
        return {urlsplit(url).netloc for url in await self.asked()}

    async def _post(self, command: str, **wish: object) -> Any:
        return await _ask(self._client, "POST", f"session/{self._session}/{command}", wish)


@contextlib.asynccontextmanager
async def open_browser(programs: Programs, profile: Path) -> AsyncIterator[Browser]:
    """
    Start a browser of its own, and end it.

    Args:
        programs: which.
        profile: a folder that does not exist yet.
    """
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    async with (
        _driver(programs.driver) as url,
        aiohttp.ClientSession(base_url=url, timeout=timeout) as client,
    ):
        made = await _ask(client, "POST", "session", _wishes(programs.browser, profile))
        try:
            yield Browser(client, made["sessionId"])
        finally:
            await _ask(client, "DELETE", f"session/{made['sessionId']}")


@contextlib.asynccontextmanager
async def _driver(program: str) -> AsyncIterator[str]:
    """Run the driver on a port of its own choice."""
    process = await asyncio.create_subprocess_exec(
        *leashed((program, "--port=0"), orphan_signal=signal.SIGTERM),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            said = b""
            while (told := _LISTENS.search(said)) is None:
                line = await process.stdout.readline()
                assert line, said
                said += line
        yield f"http://127.0.0.1:{int(told[1])}/"
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.communicate()


def _wishes(browser: str, profile: Path) -> dict[str, Any]:
    flags = [*FLAGS, f"--user-data-dir={profile}"]
    if os.geteuid() == 0:
        flags.append("--no-sandbox")  # Chromium refuses to run as root with it
    wanted = {
        "browserName": "chrome",
        "goog:chromeOptions": {"binary": browser, "args": flags},
        "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
    }
    return {"capabilities": {"alwaysMatch": wanted}}


async def _ask(client: aiohttp.ClientSession, method: str, path: str, body: object = None) -> Any:
    async with client.request(method, path, json=body) as answer:
        value = (await answer.json())["value"]
    if answer.status != 200:
        raise Refused(path, value)
    return value
