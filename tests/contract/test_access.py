"""Every route by everybody: who gets in, taken from the document so that none is forgotten."""

import base64
import json
import time

import jwt
import pytest

from tests.contract.documented import routes
from tests.contract.door import KEY, TOKENS, check
from tests.contract.lives import good_body

# Who is let in beyond the guard; what happens then is another test's.
WHO_GETS_IN = """
# route                                              viewer operator merchant
GET  /admin/v1/sales                                 yes    yes      no
POST /admin/v1/sales                                 no     yes      no
GET  /admin/v1/sales/{sale}                          yes    yes      no
POST /admin/v1/sales/{sale}/publish                  no     yes      no
POST /admin/v1/sales/{sale}/pause                    no     yes      no
POST /admin/v1/sales/{sale}/resume                   no     yes      no
POST /admin/v1/sales/{sale}/close                    no     yes      no
POST /admin/v1/sales/{sale}/restock                  no     yes      no
GET  /admin/v1/sales/{sale}/stock                    yes    yes      no
GET  /admin/v1/queues                                yes    yes      no
GET  /admin/v1/orders                                yes    yes      no
GET  /admin/v1/orders/{order}                        yes    yes      no
GET  /admin/v1/orders/{order}/fulfilment              yes    yes      no
GET  /admin/v1/orders/{order}/delivery                no     yes      no
POST /admin/v1/orders/{order}/review                  no     yes      no
POST /admin/v1/orders/{order}/ship                    no     yes      no
POST /admin/v1/orders/{order}/notes                   no     yes      no
POST /admin/v1/orders/search                          no     yes      no
POST /admin/v1/orders/{order}/after-sales/{number}/approve  no   yes      no
POST /admin/v1/orders/{order}/after-sales/{number}/refuse   no   yes      no
POST /admin/v1/orders/{order}/after-sales/{number}/settle   no   yes      no
POST /admin/v1/orders/{order}/after-sales/{number}/resend   no   yes      no
GET  /admin/v1/sales/{sale}/policy                    yes    yes      no
PUT  /admin/v1/sales/{sale}/policy                    no     yes      no
POST /admin/v1/orders/{order}/refunds                no     yes      no
GET  /admin/v1/refunds                               yes    yes      no
POST /admin/v1/refunds/{refund}/retry                no     yes      no
POST /admin/v1/refunds/{refund}/close                no     yes      no
POST /admin/v1/refunds/{refund}/paid-back            no     yes      no
POST /admin/v1/payments/{payment}/confirm            no     yes      no
POST /admin/v1/balances/top-ups                      no     yes      no
POST /admin/v1/bank-lines                            no     yes      no
GET  /admin/v1/bank-lines                            yes    yes      no
POST /admin/v1/bank-lines/{line}/assign              no     yes      no
POST /admin/v1/bank-lines/{line}/send-back           no     yes      no
GET  /admin/v1/risk/blocks                           yes    yes      no
POST /admin/v1/risk/blocks                           no     yes      no
POST /admin/v1/risk/blocks/{block}/remove            no     yes      no
GET  /admin/v1/risk/holds                            yes    yes      no
GET  /admin/v1/orders/{order}/risk                   yes    yes      no
POST /admin/v1/orders/{order}/risk/release           no     yes      no
POST /admin/v1/orders/{order}/risk/reject            no     yes      no
GET  /admin/v1/dead-letters                          yes    yes      no
POST /admin/v1/dead-letters/drop                     no     yes      no
POST /admin/v1/dead-letters/retry                    no     yes      no
GET  /admin/v1/ledger/accounts                       yes    yes      no
GET  /admin/v1/ledger/accounts/{code}/entries        yes    yes      no
GET  /admin/v1/ledger/trial-balance                  yes    yes      no
GET  /admin/v1/audit                                 yes    yes      no
"""
ADMITTED = {
    tuple(line.split()[:2]): dict(zip(TOKENS, line.split()[2:], strict=True))
    for line in WHO_GETS_IN.strip().splitlines()[1:]
}
GUARDED = [route for route in routes() if route.access]
SHOPPERS = [route for route in GUARDED if route.access == "shopper"]
ADMIN = [route for route in GUARDED if route.access == "admin"]
IN_AN_HOUR = int(time.time()) + 3_600
GOOD = {"sub": "ann", "exp": IN_AN_HOUR, "aud": "doorbuster"}


def segment(content):
    return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()


def unsigned(algorithm="none"):
    """A token that claims to need no signature."""
    return f"{segment({'alg': algorithm, 'typ': 'JWT'})}.{segment(GOOD)}."


def forgeries(signer):
    """Tokens that must open nothing, by what is wrong with them."""

    def sign(claims, key=signer.key, algorithm="HS256", kid=signer.kid):
        return jwt.encode(claims, key, algorithm, headers={"kid": kid})

    good = sign(GOOD)
    return {
        "no token at all": None,
        "an empty token": "",
        "no token but words": "let me in",
        "two dots": "..",
        "another key": sign(GOOD, b"k" * 32),
        "another kid": sign(GOOD, kid="another"),
        "another hash": sign(GOOD, signer.key * 2, "HS512"),
        "alg none": unsigned(),
        "alg None": unsigned("None"),
        "expired": sign({**GOOD, "exp": int(time.time()) - 60}),
        "no exp": sign({"sub": "ann", "aud": "doorbuster"}),
        "exp as text": sign({**GOOD, "exp": "soon"}),
        "not valid yet": sign({**GOOD, "nbf": IN_AN_HOUR}),
        "wrong aud": sign({**GOOD, "aud": "elsewhere"}),
        "no aud": sign({"sub": "ann", "exp": IN_AN_HOUR}),
        "no sub": sign({"exp": IN_AN_HOUR, "aud": "doorbuster"}),
        "an empty sub": sign({**GOOD, "sub": ""}),
        "a sub with a space": sign({**GOOD, "sub": "a b"}),
        "a sub of 65 characters": sign({**GOOD, "sub": "a" * 65}),
        "half a signature": good[:-20],
        "a changed claim": ".".join(
            [good.split(".")[0], segment({**GOOD, "sub": "bob"}), good.split(".")[2]]
        ),
        "an operator's": TOKENS["operator"],
        "three thousand characters": "a" * 3_000,
    }


def test_the_table_lists_every_admin_route():
    assert {(route.method, route.path) for route in ADMIN} == ADMITTED.keys()


def test_every_admin_route_is_guarded():
    assert [route for route in routes() if route.listener == "admin"] == ADMIN


@pytest.mark.parametrize("route", SHOPPERS, ids=str)
async def test_no_forged_token_opens_a_shoppers_route(door, route):
    async with door.nothing_is_written():
        for what, token in forgeries(door.signer).items():
            reply = await door.knock(route, token=token)
            assert (reply.status, reply.code) == (401, "unauthorized"), what
            assert reply.headers["WWW-Authenticate"].startswith("Bearer")
            assert not check(route, reply, what)
        reply = await door.knock(route, token=door.signer.sign("ann"))
        assert reply.status not in {401, 403}


@pytest.mark.parametrize("route", SHOPPERS, ids=str)
@pytest.mark.parametrize("scheme", ["Basic", "bearer2", "", "Token"])
async def test_only_the_bearer_scheme_is_read(door, route, scheme):
    told = f"{scheme} {door.signer.sign('ann')}".strip()
    reply = await door.knock(route, headers=[("Authorization", told)])
    assert (reply.status, reply.code) == (401, "unauthorized")


@pytest.mark.parametrize("route", ADMIN, ids=str)
async def test_each_scope_opens_what_the_table_says(door, route):
    async with door.nothing_is_written():
        for who, answer in ADMITTED[route.method, route.path].items():
            raw = b"[]" if route.body else None  # nobody's body: who is let in gets 422
            reply = await door.knock(route, token=TOKENS[who], raw=raw)
            if answer == "no":
                assert (reply.status, reply.code) == (403, "forbidden"), who
            else:
                assert reply.status not in {401, 403}, who
            assert not check(route, reply, who)


@pytest.mark.parametrize("route", ADMIN, ids=str)
async def test_strangers_and_shoppers_get_into_no_admin_route(door, route):
    for token in (None, "", "x" * 43, TOKENS["operator"][:-1], door.signer.sign("ann")):
        reply = await door.knock(route, token=token)
        assert (reply.status, reply.code) == (401, "unauthorized"), token
        assert not check(route, reply, token)


@pytest.mark.parametrize("route", [one for one in SHOPPERS if "{order}" in one.path], ids=str)
async def test_other_peoples_orders_are_not_there(door, shop, lasting_sale, route):
    order_id = (await shop.buy(lasting_sale, "ann"))["order_id"]
    raw = json.dumps(good_body(route)).encode() if route.body else None
    async with door.nothing_is_written():
        told = [
            await door.knock(route, route.at(thing), token=door.signer.sign("bob"), raw=raw)
            for thing in (order_id, "0" * 26, order_id[:-1] + ("0" if order_id[-1] != "0" else "1"))
        ]
    assert {(reply.status, reply.code) for reply in told} == {(404, "order_not_found")}
    assert len({reply.body["detail"] for reply in told}) == 1, "nothing tells them apart"


async def test_a_key_of_one_shopper_is_not_anothers(door, shop):
    sale = await shop.open_sale()
    [route] = [one for one in SHOPPERS if one.wants_key and "{sale}" in one.path]
    path = route.at(sale)
    first = await door.knock(route, path, token=door.signer.sign("ann"), key=KEY)
    second = await door.knock(route, path, token=door.signer.sign("bob"), key=KEY)
    assert (first.status, second.status) == (202, 202)
    assert first.body["order_id"] != second.body["order_id"]
