"""The OpenAPI documents are valid, complete, and true of what is answered."""

import json
import re
from urllib.parse import quote

import pytest

from tests.contract import house_lives, lives
from tests.contract.documented import DOCUMENTS, routes
from tests.contract.door import check
from tests.journeys.group_rush import open_group_sale
from tests.journeys.shop import new_key
from tests.waiting import eventually

BODIES = {
    "/v1/sales/{sale}/orders": {"quantity": 1, "reference": "a test"},
    "/v1/orders/{order}/payments": {"provider": "sandbox", "product": "qr"},
    "/admin/v1/sales": {"title": "A thing", "stock": 5, "price_minor": 100},
    "/admin/v1/sales/{sale}/restock": {"units": 1, "reason": "found"},
    "/admin/v1/orders/{order}/refunds": {"amount_minor": 1, "reason": "a test"},
    "/admin/v1/refunds/{refund}/retry": {"reason": "a test"},
    "/admin/v1/dead-letters/drop": {"reason": "a test", "dry_run": True},
    "/admin/v1/dead-letters/retry": {"reason": "a test", "dry_run": True},
    **lives.BODIES,
}
UNSIGNED = "/v1/callbacks/"  # a provider's own words, answered in its own words


def references(node):
    """Yield every $ref of a document."""
    if isinstance(node, dict):
        if "$ref" in node:
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    if isinstance(node, list):
        for inner in node:
            yield from references(inner)


@pytest.mark.parametrize("listener", DOCUMENTS)
def test_every_reference_leads_somewhere(listener):
    document = DOCUMENTS[listener]
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas


@pytest.mark.parametrize("listener", DOCUMENTS)
def test_it_is_openapi_3_1(listener):
    document = DOCUMENTS[listener]
    assert re.fullmatch(r"3\.1\.\d", document["openapi"])
    assert document["info"].keys() >= {"title", "version"}
    used = {
        name for route in routes() for one in route.operation.get("security", []) for name in one
    }
    assert used <= document["components"]["securitySchemes"].keys()
    names = [
        operation["operationId"]
        for path in document["paths"].values()
        for operation in path.values()
    ]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("route", routes(), ids=str)
def test_a_route_is_described_in_full(route):
    told = route.operation
    assert told["summary"].endswith(".")
    assert set(route.parameters("path")) == set(re.findall(r"\{(\w+)\}", route.path))
    assert any(status.startswith("2") for status in told["responses"])
    for response in told["responses"].values():
        assert response["description"]


@pytest.mark.parametrize("listener", DOCUMENTS)
async def test_the_service_tells_the_same_document(door, listener):
    [route, *_] = [one for one in routes() if one.listener == listener and one.method == "GET"]
    reply = await door.knock(route, "/openapi.json")
    assert reply.status == 200
    assert reply.body == json.loads(json.dumps(DOCUMENTS[listener]))


@pytest.mark.parametrize("route", [one for one in routes() if UNSIGNED not in one.path], ids=str)
async def test_a_success_is_as_documented(door, shop, lasting_sale, route):
    sale = lasting_sale
    if route.path.endswith("/publish"):
        sale = await shop.create_sale()
    elif "{sale}" in route.path:
        sale = await shop.open_sale(limit_per_shopper=9)
    order_id = (await shop.buy(sale, "ann"))["order_id"] if "{order}" in route.path else ""
    await lives.live(shop, route, order_id)
    path = route.path.replace("{sale}", sale).replace("{order}", order_id).replace("{number}", "1")
    if "{code}" in path:
        path = path.replace("{code}", await an_account(shop))
    path, told = await house_lives.prepare(shop, path)
    if "{block}" in path:
        path = path.replace("{block}", await lives.block(shop, "nobody", "refuse"))
    if "{refund}" in path:
        bought = (await shop.buy(sale, "ann"))["order_id"]
        path = path.replace("{refund}", await lives.ask_refund(shop, bought))
    if "{group}" in path:
        path = path.replace("{group}", await a_group(shop))
    raw = None
    if route.body is not None:
        raw = json.dumps({**BODIES.get(route.path, {"reason": "a test"}), **told}).encode()
    token = door.token_for(route)
    reply = await door.knock(route, path, token=token, raw=raw, key=new_key())
    assert 200 <= reply.status < 300, reply
    assert not check(route, reply, path)
    await lives.rest(shop, route)


async def a_group(shop):
    """Name a group with one seat taken."""
    order = await shop.buy(await open_group_sale(shop), "ann", group="new")
    return order["group"]


async def an_account(shop):
    """Name an account of the ledger; a paid order leads to one if there is none yet."""

    async def code():
        accounts = (await shop.read("/ledger/accounts"))["items"]
        return accounts[0]["code"] if accounts else ""

    if not await code():
        order_id = (await shop.buy(await shop.open_sale(), "ann"))["order_id"]
        await shop.pay(order_id, "ann")
    return quote(await eventually(code))
