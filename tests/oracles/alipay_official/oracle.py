"""
alipay-sdk-python, Alipay's own, behind a line protocol; it knows nothing of ours.

Each line in is `{"do": name, …}`, each line out `{"answer": …}` or `{"raised": …}`.
"""

import json
import sys

from alipay.aop.api.AlipayClientConfig import AlipayClientConfig
from alipay.aop.api.constant.CommonConstants import THREAD_LOCAL
from alipay.aop.api.DefaultAlipayClient import DefaultAlipayClient
from alipay.aop.api.util import SignatureUtils


class Desk:
    """The SDK's signing, checking and reading."""

    def sign(self, *, parameters: dict[str, str], private_key: str) -> str:
        text = SignatureUtils.get_sign_content(parameters)
        return SignatureUtils.sign_with_rsa2(private_key, text, "utf-8")

    def judge_notification(self, *, fields: dict[str, str], public_key: str) -> bool:
        kept = {name: value for name, value in fields.items() if name not in ("sign", "sign_type")}
        text = SignatureUtils.get_sign_content(kept).encode()
        return SignatureUtils.verify_with_rsa(public_key, text, fields["sign"])

    def judge_answer(self, *, raw: str, public_key: str) -> str:
        """Check an answer of the gateway; the content it cuts out."""
        THREAD_LOCAL.logger, THREAD_LOCAL.uuid = None, ""  # as its own `execute` does
        config = AlipayClientConfig()
        config.alipay_public_key = public_key
        client = DefaultAlipayClient(config)
        return client._DefaultAlipayClient__parse_response(raw.encode())  # noqa: SLF001  no network


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
