"""The signed part of an answer is cut out byte for byte, whatever its strings hold."""

import json
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.kernel.errors import BadSignature
from app.payments.provider import MalformedMessage
from app.payments.providers.alipay.response import (
    read_envelope,
    scan_members,
    verified_content,
)
from tests.unit.payments.alipay.alipay_side import answer, key, signature

METHOD: Final = "alipay.trade.query"
KEYS: Final = (key("alipay").public_key(),)

CONTENTS: Final = [
    b'{"code":"10000","msg":"Success"}',
    b'{"subject":"a}b{c"}',
    rb'{"subject":"a\"}b{\\"}',
    rb'{"subject":"\\\\\""}',
    b'{"subject":"\\u007d\\u0022"}',
    b'{"subject":"alipay_trade_query_response\\":{","n":1}',
    b'{"subject":"},\\"sign\\":\\"forged"}',
    b'{"list":[{"a":{"b":[]}},{}],"empty":{}}',
    '{"subject":"一件 [特价]"}'.encode(),
    b'{ "spaced" : "out" , "n" : -1.50e3 , "t" : true }',
    b"{}",
]


@pytest.mark.parametrize("content", CONTENTS)
def test_the_content_is_what_was_signed(content: bytes):
    envelope = read_envelope(answer(METHOD, content), METHOD)
    assert envelope.content == content
    assert verified_content(envelope, KEYS) == content


@pytest.mark.parametrize("content", CONTENTS)
def test_the_order_of_members_does_not_matter(content: bytes):
    sign = signature(content).encode()
    raw = b' {"sign" : "%s" ,\n"alipay_trade_query_response" : %s } \r\n' % (sign, content)
    assert verified_content(read_envelope(raw, METHOD), KEYS) == content


def test_slashes_escaped_after_signing_are_unescaped_before_reading():
    content = b'{"qr_code":"https://qr.alipay.com/bax0"}'
    envelope = read_envelope(answer(METHOD, content, escaped=True), METHOD)
    assert envelope.content == rb'{"qr_code":"https:\/\/qr.alipay.com\/bax0"}'
    assert verified_content(envelope, KEYS) == content


def test_what_is_read_is_the_text_that_was_signed_and_not_one_that_folds_into_it():
    # `\\/` is a backslash and a slash; folded, it is a slash alone, which was signed.
    signed = rb'{"subject":"a\/b"}'
    raw = b'{"alipay_trade_query_response":%s,"sign":"%s"}' % (
        rb'{"subject":"a\\/b"}',
        signature(signed).encode(),
    )
    assert verified_content(read_envelope(raw, METHOD), KEYS) == signed


def test_an_error_of_the_gateway_is_an_answer_too():
    raw = b'{"error_response":{"code":"40002","sub_code":"isv.invalid-app-id"}}'
    envelope = read_envelope(raw, METHOD)
    assert (envelope.signature, envelope.certificate_serial) == (None, None)
    with pytest.raises(BadSignature):
        verified_content(envelope, KEYS)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"{}",
        b"<html>busy</html>",
        b'{"alipay_trade_query_response":"text","sign":"x"}',
        b'{"alipay_trade_query_response":[1],"sign":"x"}',
        b'{"alipay_trade_close_response":{},"sign":"x"}',
        b'{"alipay_trade_query_response":{},"alipay_trade_query_response":{"a":1}}',
        b'{"alipay_trade_query_response":{},"\\u0061lipay_trade_query_response":{}}',
        b'{"alipay_trade_query_response":{}',
        b'{"alipay_trade_query_response":{"a":"}',
        b'{"alipay_trade_query_response":{}} trailing',
        b'{"alipay_trade_query_response":{},}',
        b'{"alipay_trade_query_response" {}}',
        b"{alipay_trade_query_response:{}}",
        b'\xef\xbb\xbf{"alipay_trade_query_response":{}}',
        b'{"a":' + b"[" * 100_000,
    ],
)
def test_what_is_no_answer_is_malformed(raw: bytes):
    with pytest.raises(MalformedMessage):
        read_envelope(raw, METHOD)


def test_depth_costs_no_stack():
    deep = b"[" * 100_000 + b"]" * 100_000
    assert scan_members(b'{"a":%s}' % deep) == {"a": deep}


TEXTS: Final = st.text() | st.sampled_from(['{"', '}"', '\\"', "\\", '"sign":"', "[", "/"])
VALUES: Final = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXTS, VALUES, max_size=5), st.sampled_from([None, 1]), st.booleans())
def test_the_scanner_agrees_with_a_parser(document: dict[str, Any], indent, ascii_only):
    raw = json.dumps(document, indent=indent, ensure_ascii=ascii_only).encode()
    members = scan_members(raw)
    assert {name: json.loads(value) for name, value in members.items()} == json.loads(raw)


@given(st.binary())
def test_no_bytes_break_the_scanner(raw: bytes):
    try:
        envelope = read_envelope(raw, METHOD)
    except MalformedMessage:
        return
    with pytest.raises(BadSignature):
        verified_content(envelope, KEYS)


@given(
    st.lists(st.sampled_from([b"{", b"}", b"[", b"]", b'"', b"\\", b":", b",", b" ", b"a", b"1"]))
)
def test_no_marks_break_the_scanner(parts: list[bytes]):
    try:
        members = scan_members(b"".join(parts))
    except MalformedMessage:
        return
    assert all(members.values())


SIGNED: Final = answer(METHOD, b'{"code":"10000","total_amount":"12.34","subject":"a}b"}')


@given(st.integers(0, len(SIGNED) - 1), st.integers(0, 255))
def test_no_changed_byte_is_verified_with_another_content(place: int, byte: int):
    changed = SIGNED[:place] + bytes([byte]) + SIGNED[place + 1 :]
    original = read_envelope(SIGNED, METHOD)
    try:
        envelope = read_envelope(changed, METHOD)
        told = verified_content(envelope, KEYS)
    except (MalformedMessage, BadSignature):
        return
    # Spaces between members, and nothing else, are free.
    assert (told, envelope.signature) == (original.content, original.signature)


def test_a_signature_has_one_spelling():
    content = b'{"code":"10000"}'
    sign = signature(content)
    last = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    twin = sign[:-3] + last[last.index(sign[-3]) ^ 1] + "=="
    for other in (twin, sign.rstrip("="), sign + "=", f" {sign}", sign.replace("+", " ") + "\n"):
        raw = b'{"alipay_trade_query_response":%s,"sign":%s}' % (
            content,
            json.dumps(other).encode(),
        )
        with pytest.raises(BadSignature):
            verified_content(read_envelope(raw, METHOD), KEYS)
