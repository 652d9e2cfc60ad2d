"""Which loopback address a cloud gets where other programs listen already."""

from __future__ import annotations

import socket

import pytest

from constellation.base.errors import Conflict
from constellation.providers.local.daemon import address


@pytest.mark.parametrize("port", [6443, 20012, 31234])
def test_an_address_with_a_busy_port_is_passed_over(port: int) -> None:
    others = frozenset(f"127.0.0.{n}" for n in range(1, 230))
    free = address.choose(others)
    with socket.create_server((free, port)):
        assert address.choose(others) != free


def test_a_port_that_is_busy_everywhere_is_said_with_what_to_do() -> None:
    with pytest.raises(Conflict) as caught:
        address.choose(frozenset(), lambda _: False)
    assert "6443" in str(caught.value)
    assert "ss -ltnp" in caught.value.hint
