"""What every reply has, and how every refusal reads, over a real socket."""

import json

import msgspec
import pytest

from app.telemetry.requests import RequestTally
from tests.contract.web_listener import get, line_to, listening, post

JSON = "Content-Type: application/json"
ANN = "Authorization: Bearer shopper.ann"


async def ask(raw: bytes) -> tuple[int, dict[str, str], bytes]:
    async with listening() as listener, line_to(listener) as line:
        line.send(raw)
        return await line.reply()


async def refused(raw: bytes) -> tuple[int, str, dict]:
    status, headers, body = await ask(raw)
    assert headers["content-type"] == "application/problem+json"
    document = json.loads(body)
    assert document["status"] == status
    assert document["request_id"] == headers["x-request-id"]
    assert document["type"].endswith(document["code"])
    return status, document["code"], document


async def test_a_reply_carries_request_id_date_and_the_sale_clock():
    status, headers, body = await ask(post("/orders", b'{"quantity": 2}', JSON, ANN))
    assert (status, json.loads(body)) == (201, {"shopper": "ann", "quantity": 2})
    assert headers["x-request-id"]
    assert headers["date"].endswith("GMT")
    assert headers["server-now-ms"] == "1700000000123"
    assert headers["server"] == "doorbuster"


@pytest.mark.parametrize(
    ("given", "kept"),
    [("abc-1.2:3_4", True), ("x" * 65, False), ('a"b', False), ("a b", False)],
)
async def test_a_sane_request_id_is_kept_and_any_other_replaced(given, kept):
    _, headers, _ = await ask(get("/none", f"X-Request-Id: {given}"))
    assert (headers["x-request-id"] == given) is kept


async def test_an_absent_body_reads_as_an_empty_object():
    status, _, body = await ask(post("/orders", b"", ANN))
    assert (status, json.loads(body)["quantity"]) == (201, 1)


async def test_msgpack_is_read_and_answered_where_the_endpoint_speaks_it():
    status, headers, body = await ask(
        post(
            "/orders",
            msgspec.msgpack.encode({"quantity": 3}),
            "Content-Type: application/msgpack",
            "Accept: application/msgpack",
            ANN,
        ),
    )
    assert (status, headers["content-type"]) == (201, "application/msgpack")
    assert msgspec.msgpack.decode(body) == {"shopper": "ann", "quantity": 3}


async def test_an_unknown_address_is_a_problem():
    status, code, document = await refused(get("/nowhere?x=1"))
    assert (status, code, document["instance"]) == (404, "not_found", "/nowhere")
    assert document["retryable"] is False


async def test_a_wrong_method_is_a_problem_that_names_the_right_ones():
    status, headers, body = await ask(get("/orders"))
    assert (status, headers["allow"]) == (405, "POST")
    assert json.loads(body)["code"] == "method_not_allowed"


async def test_a_bug_is_a_500_without_a_trace():
    status, code, document = await refused(get("/broken/here"))
    assert (status, code, document["retryable"]) == (500, "internal_error", True)
    assert "ZeroDivision" not in json.dumps(document)
    assert "Traceback" not in json.dumps(document)


@pytest.mark.parametrize("path", ["/broken/%00", "/broken/%01", "/broken/a%0Ab"])
async def test_control_characters_in_a_path_name_nothing(path):
    status, code, _ = await refused(get(path))
    assert (status, code) == (404, "not_found")


@pytest.mark.parametrize("path", [b"/broken/\xff", b"/broken/\xed\xa0\x80", b"/%ff%fe"])
async def test_bytes_that_are_not_utf_8_in_a_path_are_refused(path):
    raw = b"GET " + path + b" HTTP/1.1\r\nHost: test\r\n\r\n"
    status, _, body = await ask(raw)
    assert status in {400, 404}
    assert json.loads(body)["code"] in {"bad_request", "not_found"}


@pytest.mark.parametrize(
    ("spoken", "title", "tongue"),
    [
        ("zh", "未找到", "zh-CN"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "未找到", "zh-CN"),
        ("zh-Hans", "未找到", "zh-CN"),
        ("en;q=0.3, zh;q=0.2", "Not found", "en"),
        ("fr, de;q=0.8", "Not found", "en"),
        ("zh;q=abc", "Not found", "en"),
        ("zh;q=0", "Not found", "en"),
    ],
)
async def test_titles_follow_accept_language(spoken, title, tongue):
    _, headers, body = await ask(get("/nowhere", f"Accept-Language: {spoken}"))
    assert (json.loads(body)["title"], headers["content-language"]) == (title, tongue)


ROLES = """
# method path      token        -> status
  GET    /viewer   -               401
  GET    /viewer   nobody          401
  GET    /viewer   viewer          200
  GET    /viewer   operator        200
  GET    /viewer   merchant:m1     403
  POST   /operator viewer          403
  POST   /operator operator        200
  POST   /operator merchant:m1     403
  GET    /merchant viewer          200
  POST   /merchant viewer          403
  GET    /merchant merchant:m1     200
  POST   /merchant merchant:m1     200
  POST   /merchant operator        200
  POST   /orders   -               401
  POST   /orders   operator        401
"""


@pytest.mark.parametrize("row", [row.split() for row in ROLES.strip().splitlines()[1:]])
async def test_a_scope_opens_what_it_should_and_nothing_else(row):
    method, path, shown, expected = row
    sent = [] if shown == "-" else [f"Authorization: Bearer {shown}"]
    raw = get(path, *sent) if method == "GET" else post(path, b"", *sent)
    status, headers, body = await ask(raw)
    assert status == int(expected), body
    if status == 401:
        assert headers["www-authenticate"].startswith("Bearer")


async def test_requests_are_counted_by_pattern_and_not_by_path():
    tally = RequestTally()
    async with listening(tally=tally) as listener, line_to(listener) as line:
        for path in ("/broken/1", "/broken/2", "/nowhere/3"):
            line.send(get(path))
            await line.reply()
    counted = {
        tuple(sample.labels.values()): sample.value
        for metric in tally.collect()
        for sample in metric.samples
        if sample.name == "doorbuster_requests_total"
    }
    assert counted == {("/broken/{thing}", "GET", "500"): 2, ("none", "GET", "404"): 1}
