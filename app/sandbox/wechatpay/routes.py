"""Every door of WeChat Pay."""

from collections.abc import Mapping
from typing import Final

from aiohttp import web

from app.kernel.clock import Clock
from app.sandbox.desk import Desk
from app.sandbox.downloads import Downloads
from app.sandbox.statements import Statements
from app.sandbox.wechatpay.door import Door
from app.sandbox.wechatpay.merchants import Merchant
from app.sandbox.wechatpay.payments import PaymentRoutes
from app.sandbox.wechatpay.reports import ReportRoutes
from app.sandbox.wechatpay.transfers import TransferRoutes
from app.sandbox.wechatpay.wallet import WalletRoutes

_BILL_ADDRESS_MS: Final = 300_000  # how long a bill's address is good


def add_wechatpay(
    app: web.Application, desk: Desk, merchants: Mapping[str, Merchant], clock: Clock
) -> None:
    """Mount them all."""
    door = Door(desk, merchants)
    statements = Statements(desk.book, desk.scripts, desk.settings.fee_bps)
    PaymentRoutes(desk, door).add_to(app)
    TransferRoutes(desk, door).add_to(app)
    ReportRoutes(desk, door, statements, Downloads(clock, _BILL_ADDRESS_MS)).add_to(app)
    WalletRoutes(desk, merchants).add_to(app)
