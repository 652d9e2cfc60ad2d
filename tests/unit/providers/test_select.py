"""A node's provider by its name: what is unknown is refused, never guessed."""

from __future__ import annotations

import pytest

from constellation.base.errors import FormatError
from constellation.providers.local.metadata import LocalMetadata
from constellation.providers.local.node_groups import LocalNodeGroups
from constellation.providers.select import metadata, node_groups


def test_the_local_cloud_is_known() -> None:
    assert isinstance(metadata("local"), LocalMetadata)
    assert isinstance(node_groups("local"), LocalNodeGroups)


@pytest.mark.parametrize("name", ["", "Local", "aws2", "x" * 1000])
def test_an_unknown_provider_is_refused_by_name(name: str) -> None:
    for choose in (metadata, node_groups):
        with pytest.raises(FormatError, match=r"constellation\.provider is"):
            choose(name)
