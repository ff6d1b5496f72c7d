import pytest

from tests.unit.cli.calls import call


@pytest.mark.parametrize(
    "arguments",
    [("drop",), ("retry",), ("list", "--kind", "parcel"), ("drop", "--reason"), ("burn",)],
    ids=" ".join,
)
def test_wrong_usage_is_2(arguments):
    assert call("dead-letters", *arguments).exit_code == 2


@pytest.mark.parametrize("arguments", [("list",), ("drop", "--reason", "r")], ids=" ".join)
def test_without_a_running_service_it_is_5(arguments, tmp_path):
    done = call("dead-letters", *arguments, "--data-dir", str(tmp_path))
    assert (done.exit_code, done.stdout) == (5, "")
    assert "doorbuster up" in done.stderr
