"""The Alipay open platform from the gateway's side."""
