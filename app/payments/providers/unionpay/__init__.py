"""UnionPay's all-channel platform, version 5.1.0, signed with certificates."""
