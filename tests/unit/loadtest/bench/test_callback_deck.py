import msgspec

from app.embedded.payment_keys import new_payment_keys
from app.kernel.clock import SystemClock
from app.payments.provider import PayState
from app.payments.providers.sandbox import SandboxProvider, SandboxProviderSettings
from app.sandbox.wechatpay.merchants import WechatpayMerchant
from app.wiring.stores import SANDBOX_KEY_ID
from loadtest.bench.callback_deck import CallbackDeck
from loadtest.bench.payable import PRICE_MINOR

WORDS = "a secret of thirty-two characters"
NUMBERS = tuple(f"{'0' * 25}{number}01" for number in range(6))


def a_deck(seal: str | WechatpayMerchant = WORDS) -> CallbackDeck:
    return CallbackDeck(
        host="127.0.0.1:8080",
        seal=seal,
        account=("sandbox-merchant", "sandbox-app"),
        numbers=NUMBERS,
    )


def read(request: bytes) -> tuple[dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines), body


async def test_every_callback_is_one_that_the_provider_believes():
    settings = SandboxProviderSettings(
        url="http://127.0.0.1:1",
        callback_url="http://127.0.0.1:8080/v1/callbacks/sandbox",
        keys={SANDBOX_KEY_ID: WORDS.encode()},
    )
    async with SandboxProvider(settings, SystemClock()) as provider:
        told = [provider.parse_notification(*read(one)).event.about for one in a_deck().requests()]
    assert tuple(one.number for one in told) == NUMBERS
    assert {(one.state, one.amount_minor) for one in told} == {(PayState.PAID, PRICE_MINOR)}


def test_callbacks_are_as_long_as_their_heads_say():
    document = msgspec.convert(new_payment_keys().wechatpay_merchant_document(), WechatpayMerchant)
    deck = CallbackDeck(
        host="h:1", seal=document, account=(document.mchid, document.appids[0]), numbers=NUMBERS
    )
    for request in deck.requests():
        headers, body = read(request)
        assert int(headers["Content-Length"]) == len(body)
        assert headers["Wechatpay-Serial"] == document.platform_public_key_id


def test_parts_share_no_payment_and_leave_none_out():
    parts = [a_deck().part(index, 2).numbers for index in range(2)]
    assert sorted(number for part in parts for number in part) == sorted(NUMBERS)
