import pytest

from tests.unit.cli.calls import call


@pytest.mark.parametrize(
    "arguments",
    [(), ("--sale",), ("--sale", "s", "--bucket", "64"), ("--sale", "s", "--bucket", "-1")],
    ids=str,
)
def test_wrong_usage_is_2(arguments):
    assert call("recover", *arguments).exit_code == 2


def test_without_a_running_service_it_is_5(tmp_path):
    done = call("recover", "--sale", "s", "--data-dir", str(tmp_path))
    assert (done.exit_code, done.stdout) == (5, "")
    assert done.stderr
