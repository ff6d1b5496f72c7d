"""What a URL may say to the hot path's own connection; calls are tested on real sockets."""

import pytest

from app.kernel.errors import BadConfiguration
from app.storage.script_connection import ScriptConnection


@pytest.mark.parametrize(
    "option", ["ssl_cert_reqs=none", "ssl_ciphers=all", "ssl_check_hostname=no"]
)
async def test_an_option_of_tls_that_would_be_ignored_is_refused_by_its_name(option):
    with pytest.raises(BadConfiguration) as refused:
        ScriptConnection(f"rediss://redis.example:6380/0?{option}", client_name="test")
    assert refused.value.fields["option"] == option.partition("=")[0]


@pytest.mark.parametrize(
    "url",
    [
        "redis://api:p%40ss@redis.example:6380/3",
        "redis://redis.example?socket_keepalive=1",
        "rediss://redis.example:6380/0",
        "unix:///run/valkey.sock?db=2",
    ],
)
async def test_other_urls_are_taken_and_nothing_is_opened(url):
    await ScriptConnection(url, client_name="test").close()
