import json

import pytest

from tests.unit.cli.calls import call

KEYS = json.dumps([{"kid": "k", "alg": "HS256", "key": "A" * 43, "use": "sign"}])


@pytest.mark.parametrize(
    "arguments",
    [(), ("--shopper", "a", "--count", "0"), ("--shopper", "a", "--ttl", "0")],
    ids=str,
)
def test_wrong_usage_is_2(arguments):
    assert call("token", *arguments).exit_code == 2


def test_without_a_running_service_it_is_5(tmp_path):
    done = call("token", "--shopper", "ann", "--data-dir", str(tmp_path))
    assert (done.exit_code, done.stdout) == (5, "")
    assert "doorbuster up" in done.stderr


def test_with_the_keys_of_a_real_deployment_it_makes_none(tmp_path):
    done = call(
        "token", "--shopper", "ann", "--data-dir", str(tmp_path), DOORBUSTER_AUTH__KEYS=KEYS
    )
    assert (done.exit_code, done.stdout) == (1, "")
    assert "production" in done.stderr
    assert "A" * 43 not in done.output


def test_settings_that_cannot_be_read_are_told():
    done = call("token", "--shopper", "ann", DOORBUSTER_AUTH__LEEWAY_SECONDS="soon")
    assert (done.exit_code, done.stdout) == (1, "")
    assert "DOORBUSTER_AUTH__LEEWAY_SECONDS" in done.stderr
