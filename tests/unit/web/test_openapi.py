"""The document that the endpoints write of themselves."""

import json

import msgspec
from aiohttp import web

from app.web.access import Access
from app.web.catalogue import PROBLEMS
from app.web.endpoint import Endpoint
from app.web.openapi import document, refusals
from app.web.query import Page


class Line(msgspec.Struct, forbid_unknown_fields=True):
    sku: str


class Basket(msgspec.Struct, forbid_unknown_fields=True):
    lines: list[Line]
    note: str | None = None


class Receipt(msgspec.Struct):
    order_id: str
    basket: Basket


async def nothing(request: web.Request) -> web.Response:
    return web.Response(text=request.path)


BUY = Endpoint(
    method="POST",
    path="/v1/sales/{sale}/orders",
    handler=nothing,
    summary="Buy.",
    access=Access.SHOPPER,
    body=Basket,
    answers={201: Receipt, 202: Receipt},
    refusals=("sold_out", "not_open"),
    idempotent_key=True,
    prefer_wait=True,
    speaks_msgpack=True,
)
LOOK = Endpoint(
    method="GET",
    path=r"/v1/sales/{sale:[a-z]+}/orders",
    handler=nothing,
    summary="List.",
    access=Access.VIEWER,
    query=Page,
    answers={200: Receipt},
)
WRITTEN = document([BUY, LOOK], title="Doorbuster", version="1")


def references(node):
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for inner in node.values():
            yield from references(inner)
    if isinstance(node, list):
        for inner in node:
            yield from references(inner)


def test_it_is_a_3_1_document_that_json_can_carry():
    assert WRITTEN["openapi"].startswith("3.1.")
    assert json.loads(json.dumps(WRITTEN)) == WRITTEN
    assert set(WRITTEN["info"]) == {"title", "version"}


def test_every_reference_resolves():
    found = set(references(WRITTEN))
    assert "#/components/schemas/Basket" in found
    for reference in found:
        node = WRITTEN
        for step in reference.removeprefix("#/").split("/"):
            node = node[step]


def test_one_path_holds_both_methods_and_declares_its_parameter():
    (path,) = WRITTEN["paths"]
    assert path == "/v1/sales/{sale}/orders"
    for operation in WRITTEN["paths"][path].values():
        named = {(one["in"], one["name"]) for one in operation["parameters"]}
        assert ("path", "sale") in named


def test_operation_ids_differ_and_every_response_is_described():
    operations = [one for path in WRITTEN["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for operation in operations:
        assert operation["responses"]
        assert all(answer["description"] for answer in operation["responses"].values())


def test_headers_query_media_and_security_follow_the_declaration():
    buy = WRITTEN["paths"]["/v1/sales/{sale}/orders"]["post"]
    look = WRITTEN["paths"]["/v1/sales/{sale}/orders"]["get"]
    assert {"Idempotency-Key", "Prefer"} <= {one["name"] for one in buy["parameters"]}
    assert {"cursor", "limit"} <= {one["name"] for one in look["parameters"]}
    assert set(buy["requestBody"]["content"]) == {"application/json", "application/msgpack"}
    assert buy["security"] == [{"shopper": []}]
    assert look["security"] == [{"admin": []}]
    schemes = WRITTEN["components"]["securitySchemes"]
    assert {"shopper", "admin"} == set(schemes)


def test_refusals_are_those_declared_and_those_implied():
    assert {"sold_out", "not_open", "unauthorized", "idempotency_key_missing"} <= set(
        refusals(BUY),
    )
    assert "forbidden" in refusals(LOOK)
    assert "body_too_large" not in refusals(LOOK)
    buy = WRITTEN["paths"]["/v1/sales/{sale}/orders"]["post"]
    for code in refusals(BUY):
        answer = buy["responses"][str(PROBLEMS[code].status)]
        assert code in answer["description"]
        assert "application/problem+json" in answer["content"]
