"""
python-alipay-sdk behind a line protocol: it runs in its own environment and knows nothing of ours.

Each line in is `{"do": name, …}`, each line out `{"answer": …}` or `{"raised": …}`.
"""

import json
import sys
from typing import Any

from alipay import AliPay, DCAliPay


class Desk:
    """The SDK under one app."""

    def open(self, *, app_id: str, private_key: str, alipay_public_key: str) -> None:
        """Open the SDK in key mode."""
        self.sdk = AliPay(
            appid=app_id,
            app_private_key_string=private_key,
            alipay_public_key_string=alipay_public_key,
        )

    def open_certificates(self, *, app_id: str, private_key: str, **certificates: str) -> None:
        """Open the SDK in certificate mode."""
        self.sdk = DCAliPay(
            appid=app_id,
            app_private_key_string=private_key,
            app_public_key_cert_string=certificates["app"],
            alipay_public_key_cert_string=certificates["alipay"],
            alipay_root_cert_string=certificates["root"],
        )

    def go_to(self, *, gateway: str) -> None:
        """Send whatever is asked from now on to another gateway."""
        self.sdk._gateway = gateway  # noqa: SLF001  it knows two gateways, and no way to name one

    def call(self, *, method: str, content: dict[str, Any], **extra: str) -> Any:
        """Ask the gateway; the SDK checks the signature of the answer by itself."""
        return self.sdk.server_api(method, content, **extra)

    def serials(self) -> list[str]:
        return [self.sdk.app_cert_sn, self.sdk.alipay_root_cert_sn]

    def sign(self, *, parameters: dict[str, str]) -> str:
        """Return the whole signed query, as it would go to a browser."""
        return self.sdk.sign_data(parameters)

    def sign_text(self, *, text: str) -> str:
        return self.sdk._sign(text)  # noqa: SLF001  it signs nothing else but requests

    def judge_notification(self, *, fields: dict[str, str]) -> bool:
        signature = fields.pop("sign")
        return self.sdk.verify(fields, signature)

    def judge_answer(self, *, raw: str, member: str) -> Any:
        """Check an answer of the gateway; what it reads in it."""
        return self.sdk._verify_and_return_sync_response(raw, member)  # noqa: SLF001  no network


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
