"""A gateway on loopback, and the provider under each kind of account."""

from collections.abc import AsyncIterator

import pytest

from app.payments.providers.alipay.provider import AlipayProvider
from tests.unit.payments.alipay.gateway import (
    PATH,
    Gateway,
    account,
    certified,
    open_account,
    running_gateway,
)


@pytest.fixture
async def gateway() -> AsyncIterator[Gateway]:
    async with running_gateway() as running:
        yield running


@pytest.fixture
async def alipay(gateway: Gateway) -> AsyncIterator[AlipayProvider]:
    async with open_account(account(gateway.url + PATH)) as provider:
        yield provider


@pytest.fixture
async def certified_alipay(gateway: Gateway) -> AsyncIterator[AlipayProvider]:
    async with open_account(certified(gateway.url + PATH)) as provider:
        yield provider
