"""What may be said of a delivery, and how much of it is shown."""

import unicodedata

import pytest

from app.fulfilment.delivery import faults_of_delivery, full_mobile, mask, tidy_delivery
from app.fulfilment.invoice import InvoiceKind, InvoiceWish, faults_of_wish

GOOD = {"receiver": "王小明", "mobile": "13800138000", "address": "北京市朝阳区建国路 88 号"}


def faults(**changes):
    return [path for path, _ in faults_of_delivery(tidy_delivery(**{**GOOD, **changes}))]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("receiver", "王"),
        ("receiver", "Zoë O'Brien-Smith Jr."),
        ("receiver", "阿卜杜热合曼·买买提"),
        ("receiver", "x" * 64),
        ("mobile", "+8613800138000"),
        ("mobile", "+14155550100"),
        ("address", "№ 5, rue de l'Église, 3 ½, #12"),
        ("address", "1 号楼 🏠"),
        ("address", "x" * 256),
    ],
)
def test_what_people_are_called_and_where_they_live_is_taken(field, text):
    assert faults(**{field: text}) == []


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("receiver", ""),
        ("receiver", " \t "),
        ("receiver", "x" * 65),
        ("receiver", "王小明😀"),
        ("receiver", "a\nb"),
        ("receiver", "\x07bell"),
        ("receiver", "\u202eabc"),
        ("receiver", "zero\u200bwidth"),
        ("mobile", ""),
        ("mobile", "1380013800"),
        ("mobile", "138001380001"),
        ("mobile", "23800138000"),
        ("mobile", "+0123456789"),
        ("mobile", "+86 138 0013 8000"),
        ("mobile", "1380013800\u0660"),
        ("mobile", "+1234567890123456"),
        ("mobile", "138001380\n00"),
        ("address", ""),
        ("address", "x" * 257),
        ("address", "line\x00"),
        ("address", "a\u2028b"),
        ("address", "a\u202eb"),
        ("address", "\ue000"),
    ],
)
def test_what_no_label_can_carry_is_refused_by_its_field(field, text):
    assert faults(**{field: text}) == [f"$.{field}"]


def test_a_refusal_repeats_nothing_of_what_was_said():
    planted = "planted-name-😀"
    told = faults_of_delivery(tidy_delivery(planted, planted, planted * 30))

    assert len(told) == 3
    assert not any(planted[:7] in message for _, message in told)


def test_details_are_kept_in_one_form():
    typed = tidy_delivery(" Zoe\u0308 ", " 13800138000 ", GOOD["address"])

    assert (typed.receiver, typed.mobile) == ("Zoë", "13800138000")
    assert unicodedata.is_normalized("NFC", typed.receiver)


def test_both_ways_of_writing_a_number_are_one():
    assert full_mobile("13800138000") == full_mobile("+8613800138000") == "+8613800138000"


def test_a_mask_tells_no_whole_field():
    shown = mask(tidy_delivery(**GOOD))

    assert (shown.receiver, shown.mobile, shown.address) == (
        "王**",
        "138******00",
        "北京市朝阳区****",
    )
    short = mask(tidy_delivery("x", "+14155550100", "y"))
    assert (short.address, short.mobile) == ("****", "+14*******00")


def test_no_repr_tells_what_is_personal():
    details = tidy_delivery(**GOOD)
    wish = InvoiceWish(kind=InvoiceKind.PERSONAL, title="王小明", tax_number=None)

    assert not any(value in repr((details, wish)) for value in GOOD.values())


@pytest.mark.parametrize(
    ("kind", "title", "tax_number", "at"),
    [
        ("personal", "王小明", None, []),
        ("company", "Acme & Co.", "91110000600037341L", []),
        ("company", "Acme", None, ["$.tax_number"]),
        ("company", "Acme", "short", ["$.tax_number"]),
        ("personal", "王小明", "91110000600037341L", ["$.tax_number"]),
        ("personal", " ", None, ["$.title"]),
        ("personal", "a\nb", None, ["$.title"]),
        ("personal", "x" * 129, None, ["$.title"]),
    ],
)
def test_an_invoice_wish_is_whole_or_refused(kind, title, tax_number, at):
    wish = InvoiceWish(kind=InvoiceKind(kind), title=title, tax_number=tax_number)

    assert [path for path, _ in faults_of_wish(wish)] == at
