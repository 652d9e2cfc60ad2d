"""Sources of artifacts in the configuration: what no node could reach is refused, with its line."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from constellation.config.schema import Config
from tests.fakes.cloud_confs import conf


def _with(*sources: str, **provider: object) -> Config:
    cloud = conf("aws").model_dump(by_alias=True, mode="json")
    return Config.model_validate({**cloud, **provider, "artifacts": {"sources": list(sources)}})


def test_sources_are_kept_in_their_order() -> None:
    found = _with("https://b.example/k/", "http://10.0.3.7:8080")
    assert found.artifacts.sources == ("https://b.example/k", "http://10.0.3.7:8080")
    assert conf("aws", sources=()).artifacts.sources == ()


@pytest.mark.parametrize(
    "source",
    [
        "http://127.0.0.1:8000",
        "http://169.254.169.254/latest",
        "http://0.0.0.0",
        "http://168.63.129.16",
        "https://user:secret@files.example",
        "ftp://files.example",
        "files",
    ],
)
def test_what_no_node_could_or_should_ask_is_refused(source: str) -> None:
    with pytest.raises(ValidationError, match=r"nodes can reach|artifact source"):
        _with(source)


def test_the_local_provider_has_no_use_for_one() -> None:
    with pytest.raises(ValidationError, match="nodes get this machine's files"):
        Config.model_validate({"artifacts": {"sources": ["https://files.example"]}})
