"""Alipay's open platform, the classic gateway, signed with RSA2."""
