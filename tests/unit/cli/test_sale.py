import pytest

from tests.unit.cli.calls import call

TERMS = ("--title", "T", "--stock", "1", "--price-minor", "1")


@pytest.mark.parametrize(
    "arguments",
    [
        ("create", "--stock", "1", "--price-minor", "1"),
        ("create", "--title", "T", "--stock", "many", "--price-minor", "1"),
        ("create", *TERMS, "--colour", "red"),
        ("show",),
        ("publish",),
        ("restock", "a-sale", "--units", "5"),
        ("restock", "a-sale", "--units", "5", "--reason"),
        ("melt", "a-sale"),
    ],
    ids=" ".join,
)
def test_wrong_usage_is_2(arguments):
    done = call("sale", *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error" in done.stderr


@pytest.mark.parametrize("act", ["show", "publish", "pause", "resume", "close"])
def test_without_a_running_service_it_is_5_and_says_what_to_do(act, tmp_path):
    done = call("sale", act, "a-sale", "--data-dir", str(tmp_path))
    assert (done.exit_code, done.stdout) == (5, "")
    assert "doorbuster up" in done.stderr


def test_an_address_without_a_token_is_wrong_usage():
    done = call("sale", "list", "--admin-url", "http://127.0.0.1:1")
    assert done.exit_code == 2
    assert "DOORBUSTER_ADMIN_TOKEN" in done.stderr


def test_an_address_where_nobody_listens_is_5():
    where = ("--admin-url", "http://127.0.0.1:1")
    done = call("sale", "list", *where, DOORBUSTER_ADMIN_TOKEN="a-token-of-the-tests")  # noqa: S106  nobody's
    assert (done.exit_code, done.stdout) == (5, "")
    assert "does not answer" in done.stderr
    assert "a-token-of-the-tests" not in done.output
