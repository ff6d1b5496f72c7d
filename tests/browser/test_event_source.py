"""
The news of an order, heard by a real browser.

An EventSource sends no header of its own making. Until a browser can have a session,
the bearer token is added to what the page sends, as a cookie would be; the other
way, a page that reads the stream by `fetch`, sends it itself.
"""

import pytest

from app.embedded.ports import LOCALHOST
from tests.waiting import eventually

pytestmark = pytest.mark.browser

LISTEN = """
window.heard = [];
window.source = new EventSource(arguments[0]);
source.onmessage = (event) => heard.push([Number(event.lastEventId), JSON.parse(event.data)]);
"""
OPEN = 1
CLOSED = 2  # the browser comes back no more
FETCH = """
window.parts = [];
const headers = {Authorization: "Bearer " + arguments[1], "Last-Event-ID": arguments[2]};
fetch(arguments[0], {headers}).then(async (answer) => {
  window.media = answer.headers.get("Content-Type");
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (;;) {
    const {value, done} = await reader.read();
    if (done) break;
    parts.push(value);
  }
  window.ended = true;
});
"""


@pytest.fixture
async def order_id(shop):
    return (await shop.buy(await shop.open_sale(), "ann"))["order_id"]


def path_of(order_id):
    return f"/v1/orders/{order_id}/events"


async def until_heard(browser, status):
    """Wait until the page was told of a status; give all that it has heard."""

    async def look():
        heard = await browser.run("return heard")
        return heard if any(order["status"] == status for _, order in heard) else None

    return await eventually(look, within_seconds=20)


async def until_stream(browser, number, state):
    """Wait until the page has asked for its stream so many times, and the last is in a state."""

    async def look():
        asked = [url for url in await browser.asked() if url.endswith("/events")]
        return len(asked) == number and await browser.run("return source.readyState") == state

    await eventually(look, within_seconds=20)


async def test_an_event_source_hears_the_order_and_goes_on_after_a_cut(
    shop, browser, link, order_id
):
    base = f"http://{LOCALHOST}:{link.port}"
    await browser.open(f"{base}/v1/time")
    await browser.send_always(Authorization=f"Bearer {shop.token('ann')}")
    await browser.run(LISTEN, path_of(order_id))
    await until_heard(browser, "pending")
    assert await browser.complaints() == []

    link.reset()
    assert link.bites.broken >= 1
    await until_stream(browser, 2, OPEN)
    await shop.cancel(order_id, "ann")
    heard = await until_heard(browser, "closed")

    numbers = [number for number, _ in heard]
    assert numbers == sorted(set(numbers)), "nothing was told twice, so it went on where it was"
    assert heard[-1][1] == (await shop.order(order_id, "ann")).body
    await until_stream(browser, 3, CLOSED)  # came back once more, to be told that this was all
    # The cut is complained about, and nothing else.
    cut = f"{base}{path_of(order_id)} - Failed to load resource: net::ERR_"
    assert all(line.startswith(cut) for line in await browser.complaints())
    assert await browser.hosts() == {f"{LOCALHOST}:{link.port}"}


async def test_a_page_reads_the_stream_by_fetch_while_it_goes_on(shop, browser, link, order_id):
    base = f"http://{LOCALHOST}:{link.port}"
    await browser.open(f"{base}/v1/time")
    await browser.run(FETCH, path_of(order_id), shop.token("ann"), "")

    async def first():
        return "id: 1\ndata: " in "".join(await browser.run("return parts"))

    await eventually(first)
    assert await browser.run("return window.ended") is None, "it did not wait for the end"
    assert await browser.run("return media") == "text/event-stream"

    await browser.run(FETCH, path_of(order_id), shop.token("ann"), "1")
    await shop.cancel(order_id, "ann")

    async def ended():
        return await browser.run("return window.ended && parts.join('')")

    told = await eventually(ended)
    assert "id: 1\n" not in told
    assert '"status":"closed"' in told
    assert await browser.complaints() == []
    assert await browser.hosts() == {f"{LOCALHOST}:{link.port}"}
