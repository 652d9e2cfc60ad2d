from __future__ import annotations

import pytest

from constellation.base.errors import FormatError
from constellation.base.fetch import HttpStatus
from constellation.base.registry_session import RegistrySession


@pytest.mark.parametrize("realm", ["https://127.0.0.1:1/token", "file:///etc/passwd", ""])
async def test_a_token_is_fetched_only_as_privately_as_the_image(realm: str) -> None:
    session = RegistrySession("http://127.0.0.1:1/v2/a")
    header = {"www-authenticate": f'Bearer realm="{realm}",service="s"'}
    asked = HttpStatus("http://127.0.0.1:1/v2/a", status=401, headers=header)
    with pytest.raises(FormatError, match="its tokens come from"):
        await session._authorize(asked)


async def test_another_refusal_than_for_a_token_is_passed_on() -> None:
    refused = HttpStatus("http://127.0.0.1:1/v2/a", status=403, headers={})
    with pytest.raises(HttpStatus, match="403"):
        await RegistrySession("http://127.0.0.1:1/v2/a")._authorize(refused)
