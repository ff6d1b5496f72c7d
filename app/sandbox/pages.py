"""The gateway's two pages: what can be paid, and one payment with its buttons."""

from collections.abc import Sequence
from html import escape
from string import Template
from typing import Final

import segno

from app.kernel.clock import instant
from app.kernel.money import Money
from app.payments.provider import CAPTURED_STATES, PayState
from app.sandbox.records import Payment

CONTENT_SECURITY_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)

_PAGE: Final = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title · Sandbox gateway</title>
<style>
:root { color-scheme: light dark; --line: #8884; --accent: #0a7d4f; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 38rem; margin: 3rem auto; padding: 0 1rem }
h1 { font-size: 1.25rem } small, dt { opacity: .7 }
.amount { font-size: 2.5rem; font-variant-numeric: tabular-nums; margin: .5rem 0 }
dl { display: grid; grid-template-columns: auto 1fr; gap: .25rem 1rem }
dd { margin: 0; overflow-wrap: anywhere }
form { display: flex; gap: .75rem; margin: 2rem 0 } td form { margin: 0 }
figure { margin: 0; text-align: center } figcaption { opacity: .7 }
td button { padding: .3rem .8rem }
button { font: inherit; padding: .7rem 1.5rem; border: 1px solid var(--line);
         border-radius: .5rem; background: none; color: inherit; cursor: pointer }
button.pay { background: var(--accent); border-color: var(--accent); color: #fff; flex: 1 }
table { width: 100%; border-collapse: collapse } td { padding: .5rem 0;
         border-bottom: 1px solid var(--line) } td:last-child { text-align: right }
</style>
</head>
<body>
<small>Sandbox gateway: no real money moves here.</small>
$content
</body>
</html>
""")

_SENTENCES: Final = {
    PayState.NOT_PAID: "Waiting for you to pay.",
    PayState.CLOSED: "Closed: this can no longer be paid.",
    PayState.PAID: "Paid. Thank you.",
    PayState.PARTIAL_REFUND: "Paid, and partly refunded.",
    PayState.REFUNDED: "Refunded in full.",
}


_BUTTONS: Final = (
    '<button class="pay" name="press" value="pay"{focus}>Pay</button>'
    '<button name="press" value="decline">Decline</button>'
)


def payment_page(payment: Payment, url: str) -> str:
    """Show one payment; with buttons, and a code to scan, while it can be paid."""
    amount = Money(payment.captured_minor or payment.amount_minor, payment.currency)
    parts = [
        f"<h1>{escape(payment.description)}</h1>",
        f'<p class="amount">{escape(str(amount))}</p>',
        f'<p role="status">{_SENTENCES[payment.state]}</p>',
        _details(payment),
    ]
    if payment.state is PayState.NOT_PAID:
        parts.append(f'<form method="post">{_BUTTONS.format(focus=" autofocus")}</form>')
        parts.append(_code(url))
    if payment.return_url is not None:
        word = "Back to the shop" if payment.state in CAPTURED_STATES else "Leave without paying"
        parts.append(f'<p><a rel="noreferrer" href="{escape(payment.return_url)}">{word}</a></p>')
    return _PAGE.substitute(title="Pay", content="\n".join(parts))


def _code(url: str) -> str:
    """Draw the page's address, so that a telephone pays what a screen shows."""
    drawn = segno.make(url, error="m").svg_inline(scale=4, border=4, light="#fff")
    return f"<figure>{drawn}<figcaption>Or scan this, and pay over there.</figcaption></figure>"


def _details(payment: Payment) -> str:
    rows = {
        "Payment": payment.number,
        "Asked over": payment.wire,
        "Merchant": payment.merchant_id,
        "Expires": instant(payment.expires_at_ms).isoformat(timespec="seconds"),
    }
    told = "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in rows.items())
    return f"<dl>{told}</dl>"


def list_page(payments: Sequence[Payment]) -> str:
    """List payments that can be paid, newest first, each with its buttons."""
    rows = "".join(map(_row, payments))
    content = f"<table>{rows}</table>" if rows else "<p>Nothing is waiting to be paid.</p>"
    return _PAGE.substitute(title="Open payments", content=f"<h1>Open payments</h1>\n{content}")


def _row(payment: Payment) -> str:
    page = f"/pay/{escape(payment.key)}"
    amount = Money(payment.amount_minor, payment.currency)
    return (
        f'<tr><td><a href="{page}">{escape(payment.description)}</a><br>'
        f"<small>{payment.wire} · {escape(payment.number)}</small></td><td>{amount}</td>"
        f'<td><form method="post" action="{page}"><input type="hidden" name="from" value="list">'
        f"{_BUTTONS.format(focus='')}</form></td></tr>"
    )
