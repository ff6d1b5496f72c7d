"""One request whose app is known, and how Alipay says no to it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import msgspec

from app.sandbox.alipay.merchants import Merchant

Body = TypeVar("Body", bound=msgspec.Struct)

BUSINESS_FAILED: Final = ("40004", "Business Failed")
INVALID: Final = ("40002", "Invalid Arguments")
MISSING: Final = ("40001", "Missing Required Arguments")
NO_PERMISSION: Final = ("40006", "Insufficient Permissions")


class AlipayError(Exception):
    """A refusal in Alipay's words."""

    def __init__(self, *, sub_code: str, code: tuple[str, str] = BUSINESS_FAILED) -> None:
        self.code, self.msg = code
        self.sub_code = sub_code
        super().__init__(sub_code)

    def document(self) -> dict[str, str]:
        return {
            "code": self.code,
            "msg": self.msg,
            "sub_code": self.sub_code,
            "sub_msg": self.sub_code,
        }


@dataclass(frozen=True, slots=True)
class Question:
    """A request that its app has signed."""

    merchant: Merchant
    parameters: Mapping[str, str]

    def body(self, kind: type[Body]) -> Body:
        """
        Read `biz_content`.

        Raises:
            AlipayError: it is not such a document.
        """
        try:
            return msgspec.json.decode(self.parameters.get("biz_content", ""), type=kind)
        except (msgspec.DecodeError, RecursionError) as error:
            raise AlipayError(sub_code="isv.invalid-parameter", code=INVALID) from error


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `number` is whose script may lose it."""

    number: str
    document: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToPage:
    """Send the browser to the payment's page."""

    number: str


Answer = Callable[[Question], Reply | ToPage]
