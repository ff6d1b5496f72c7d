import pytest

from app.embedded.store_notes import StoreNotes
from app.embedded.valkey import (
    CONNECTION_COMMANDS,
    SOCKET_PATH_BYTES_MAX,
    unix_socket,
    valkey_config,
)
from app.kernel.errors import BadConfiguration
from app.storage.redis import API_COMMANDS

NOTES = StoreNotes(valkey_port=20_001)


def lines(folder, deployment="doorbuster"):
    return valkey_config(folder, NOTES, deployment).splitlines()


def api_line(folder, deployment="doorbuster"):
    (line,) = (line for line in lines(folder, deployment) if line.startswith("user api "))
    return line.split()


@pytest.mark.parametrize(
    "line",
    [
        "appendonly yes",
        "appendfsync always",
        "no-appendfsync-on-rewrite no",
        "maxmemory-policy noeviction",
        'save ""',
        "bind 127.0.0.1",
        "port 20001",
        "user default off",
    ],
)
def test_the_promises_stand_in_the_file(tmp_path, line):
    assert line in lines(tmp_path)


def test_no_password_stands_in_the_file(tmp_path):
    text = valkey_config(tmp_path, NOTES, "doorbuster")
    assert NOTES.redis_admin_password not in text
    assert NOTES.redis_api_password not in text


def test_the_api_user_has_its_commands_and_its_deployment_alone(tmp_path):
    words = api_line(tmp_path)
    assert {word for word in words if word.startswith("+")} == {
        f"+{command}" for command in (*CONNECTION_COMMANDS, *API_COMMANDS)
    }
    assert "~doorbuster:*" in words
    assert "&doorbuster:*" in words
    assert "-@all" in words
    assert words.index("-@all") < min(words.index(word) for word in words if word[0] == "+")


def test_the_api_user_may_not_load_scripts():
    assert not {"script", "script|load", "eval", "@all", "config", "keys"} & {*API_COMMANDS}


@pytest.mark.parametrize("deployment", ["", "a b", "a:b", "{a}", "A", "a\n", "x" * 41])
def test_a_deployment_that_would_break_the_file_is_refused(tmp_path, deployment):
    with pytest.raises(BadConfiguration):
        valkey_config(tmp_path, NOTES, deployment)


def test_a_path_with_spaces_and_quotes_is_one_word(tmp_path):
    assert f'dir "{tmp_path}/a \\"b\\" c"' in lines(tmp_path / 'a "b" c')


def test_a_path_too_long_for_the_kernel_has_no_socket(tmp_path):
    assert unix_socket(tmp_path / "short").endswith("valkey.sock")
    assert not unix_socket(tmp_path / ("x" * SOCKET_PATH_BYTES_MAX))
