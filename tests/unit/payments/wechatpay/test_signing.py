"""What is signed, byte by byte, as the protocol's own pages show it."""

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.hashes import SHA1, SHA256

from app.kernel.errors import BadSignature
from app.payments.provider import StaleMessage
from app.payments.providers.wechatpay.signing import (
    Merchant,
    Request,
    authorization,
    check_seal,
    encrypt_field,
    invocation_text,
    message_text,
    read_seal,
    request_text,
    serial_name,
    sign,
)
from tests.unit.payments.wechatpay.gateway_side import NOW_SECONDS, rsa_key, signed_headers

# The texts that WeChat Pay's pages on signing print, line by line.
TEXTS = {
    "a request without a body": (
        request_text(
            Request("GET", "/v3/refund/domestic/refunds/123123123123"),
            "1554208460",
            "593BEC0C930BF1AFEB40B4A08C8FB242",
        ),
        [
            "GET",
            "/v3/refund/domestic/refunds/123123123123",
            "1554208460",
            "593BEC0C930BF1AFEB40B4A08C8FB242",
            "",
        ],
    ),
    "a request with query and body": (
        request_text(
            Request("POST", "/v3/a?b=%7C&c=1", '{"description":"图书"}'.encode()),
            "1554208460",
            "n",
        ),
        ["POST", "/v3/a?b=%7C&c=1", "1554208460", "n", '{"description":"图书"}'],
    ),
    "an answer": (
        message_text("1554209980", "c5ac7061fccab6bf3e254dcf98995b8c", b'{"data":[]}'),
        ["1554209980", "c5ac7061fccab6bf3e254dcf98995b8c", '{"data":[]}'],
    ),
    "an answer without a body": (message_text("1554209980", "n", b""), ["1554209980", "n", ""]),
    "inside the wallet": (
        invocation_text(
            "wx8888888888888888",
            "1414561699",
            "5K8264ILTKCH16CQ2502SI8ZNMTM67VS",
            "prepay_id=wx201410272009395522657a690389285100",
        ),
        [
            "wx8888888888888888",
            "1414561699",
            "5K8264ILTKCH16CQ2502SI8ZNMTM67VS",
            "prepay_id=wx201410272009395522657a690389285100",
        ],
    ),
    "from an app": (
        invocation_text("wx8888888888888888", "1414561699", "n", "WX1217752501201407033233368018"),
        ["wx8888888888888888", "1414561699", "n", "WX1217752501201407033233368018"],
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_every_line_ends_with_a_newline_the_last_one_too(case: str):
    written, lines = TEXTS[case]
    assert written == "".join(f"{line}\n" for line in lines).encode()


def test_the_authorization_names_who_signed_and_what_holds():
    merchant = Merchant(
        "1900009191", "1DDE55AD98ED71D6EDD4A4A16996DE7B47773A8C", rsa_key("merchant")
    )
    request = Request("POST", "/v3/x", b"{}")
    header = authorization(merchant, request, "1554208460", "nonce")
    scheme, _, told = header.partition(" ")
    fields = dict(part.split("=", 1) for part in told.split(","))
    assert scheme == "WECHATPAY2-SHA256-RSA2048"
    assert {name: value.strip('"') for name, value in fields.items() if name != "signature"} == {
        "mchid": "1900009191",
        "nonce_str": "nonce",
        "timestamp": "1554208460",
        "serial_no": "1DDE55AD98ED71D6EDD4A4A16996DE7B47773A8C",
    }
    rsa_key("merchant").public_key().verify(
        base64.b64decode(fields["signature"].strip('"')),
        b"POST\n/v3/x\n1554208460\nnonce\n{}\n",
        padding.PKCS1v15(),
        SHA256(),
    )


def test_a_signature_is_of_these_bytes_and_this_key_alone():
    text = b"1\nn\nbody\n"
    made = base64.b64decode(sign(rsa_key("merchant"), text))
    rsa_key("merchant").public_key().verify(made, text, padding.PKCS1v15(), SHA256())
    with pytest.raises(InvalidSignature):
        rsa_key("platform").public_key().verify(made, text, padding.PKCS1v15(), SHA256())


def test_a_personal_field_is_read_by_its_reader_alone():
    sealed = base64.b64decode(encrypt_field(rsa_key("platform").public_key(), "张三"))
    oaep = padding.OAEP(mgf=padding.MGF1(SHA1()), algorithm=SHA1(), label=None)  # noqa: S303  the protocol's
    assert rsa_key("platform").decrypt(sealed, oaep).decode() == "张三"


# signed at, seconds from now -> holds
AGES = """
     0  yes
   300  yes
  -300  yes
   301  no
  -301  no
 86400  no
"""


@pytest.mark.parametrize("row", AGES.strip().splitlines())
def test_a_message_holds_for_five_minutes_before_and_after(row: str):
    offset, holds = row.split()
    timestamp = str(NOW_SECONDS + int(offset))
    seal = read_seal(signed_headers(b"{}", timestamp=timestamp))
    key = rsa_key("platform").public_key()
    if holds == "yes":
        check_seal(seal, key, b"{}", NOW_SECONDS)
    else:
        with pytest.raises(StaleMessage):
            check_seal(seal, key, b"{}", NOW_SECONDS)


@pytest.mark.parametrize(
    "timestamp",
    [
        "",
        " 1800000000",
        "1800000000 ",
        "1800000000\n",
        "+1800000000",
        "-1",
        "1.8e9",
        "1_800_000_000",
        "0x6b49d200",
        "180000000000",
        "\uff11\uff18" + 8 * "\uff10",  # full-width digits, which int() would take
    ],
)
def test_a_timestamp_is_ascii_digits_and_nothing_else(timestamp: str):
    with pytest.raises(BadSignature):
        read_seal(signed_headers(b"{}") | {"Wechatpay-Timestamp": timestamp})


def test_no_signature_headers_at_all_is_not_a_signature():
    assert read_seal({"Content-Type": "application/json", "Request-ID": "1"}) is None


def test_header_names_are_compared_without_case_and_doubled_ones_refused():
    headers = signed_headers(b"{}")
    assert read_seal({name.upper(): value for name, value in headers.items()}) is not None
    with pytest.raises(BadSignature):
        read_seal(headers | {"wechatpay-serial": "PUB_KEY_ID_2"})


# serial -> kept under
SERIALS = """
PUB_KEY_ID_01a    PUB_KEY_ID_01a
5157F09EFDC096DE  5157F09EFDC096DE
5157f09efdc096de  5157F09EFDC096DE
005157f0          5157F0
"""


@pytest.mark.parametrize("row", SERIALS.strip().splitlines())
def test_a_certificate_is_named_by_a_number_and_a_key_by_a_name(row: str):
    serial, name = row.split()
    assert serial_name(serial) == name
