import socket

import pytest

from app.embedded.errors import PortTaken
from app.embedded.ports import (
    FIRST_PORT,
    LAST_PORT,
    LOCALHOST,
    free_port,
    hold_port,
    is_free,
    kept_port,
)


@pytest.fixture
def taken():
    with socket.create_server((LOCALHOST, 0)) as listener:
        yield listener.getsockname()[1]


def test_a_free_port_lies_below_the_range_of_outgoing_connections():
    assert FIRST_PORT <= free_port() <= LAST_PORT


def test_a_noted_port_is_kept_while_it_is_free(taken):
    port = free_port()
    assert kept_port(port) == port
    assert kept_port(taken) != taken
    assert kept_port(0) != 0


def test_a_held_port_is_nobody_elses__but_can_be_shared():
    with hold_port(0, option="--port") as held:
        port = held.getsockname()[1]
        assert not is_free(port)
        with socket.create_server((LOCALHOST, port), reuse_port=True), pytest.raises(PortTaken):
            hold_port(port, option="--port")
    assert is_free(port)


def test_a_taken_port_is_told_with_its_option(taken):
    with pytest.raises(PortTaken, match=f"Port {taken} is taken .* with --port"):
        hold_port(taken, option="--port")
