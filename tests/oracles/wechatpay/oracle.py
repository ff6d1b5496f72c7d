"""
wechatpayv3 behind a line protocol: it runs in its own environment and knows nothing of ours.

Each line in is `{"do": name, …}`, each line out `{"answer": …}` or `{"raised": …}`.
"""

import base64
import json
import sys
from typing import Any

import wechatpayv3.utils
from wechatpayv3 import WeChatPay, WeChatPayType
from wechatpayv3.type import RequestType


class Desk:
    """The SDK under one merchant account."""

    def open(self, *, gateway: str, **account: str) -> None:
        """Open the SDK in public-key mode; whatever it sends goes to `gateway`."""
        self.sdk = WeChatPay(WeChatPayType.NATIVE, **account)
        self.core = self.sdk._core  # noqa: SLF001  it has no other way to another host
        self.core._gate_way = gateway  # noqa: SLF001

    def use_certificates(self) -> int:
        """Forget the public key and download the platform certificates; say how many."""
        core = self.core
        core._public_key = core._public_key_id = None  # noqa: SLF001
        core._update_certificates()  # noqa: SLF001
        return len(core._certificates)  # noqa: SLF001

    def authorization(  # what it would send as the header of one request
        self, *, method: str, path: str, body: str, timestamp: int, nonce: str
    ) -> str:
        time = wechatpayv3.utils.time
        told, time.time = time.time, lambda: timestamp
        try:
            return wechatpayv3.utils.build_authorization(
                path,
                RequestType[method].value,
                self.core._mchid,  # noqa: SLF001
                self.core._cert_serial_no,  # noqa: SLF001
                self.core._private_key,  # noqa: SLF001
                data=body,
                nonce_str=nonce,
            )
        finally:
            time.time = told

    def sign(self, *, lines: list[str]) -> str:
        return self.sdk.sign(lines)

    def judge(self, *, headers: dict[str, str], body: str) -> Any:
        """Check and open a notification; null when it is refused without an exception."""
        return self.sdk.callback(headers, base64.b64decode(body))

    def encrypt(self, *, text: str) -> str:
        return self.core.encrypt(text)

    def decrypt(self, *, sealed: str) -> str:
        return self.sdk.decrypt(sealed)

    def call(self, *, method: str, **arguments: Any) -> list[Any]:
        """Let the SDK ask the gateway; it checks the answer's signature by itself."""
        kind = arguments.pop("pay_type", None)
        if kind is not None:
            arguments["pay_type"] = WeChatPayType[kind]
        status, answer = getattr(self.sdk, method)(**arguments)
        return [status, answer if isinstance(answer, str) else base64.b64encode(answer).decode()]


def main() -> None:
    desk = Desk()
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            answer = {"answer": getattr(desk, asked.pop("do"))(**asked)}
        except Exception as error:  # noqa: BLE001  whatever it raises is its verdict
            answer = {"raised": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


main()
