"""WeChat Pay, API v3: one merchant account on its real wire."""
