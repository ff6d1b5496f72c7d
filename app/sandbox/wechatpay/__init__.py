"""WeChat Pay API v3 from the gateway's side."""
