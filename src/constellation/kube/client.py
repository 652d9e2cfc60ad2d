"""A typed Kubernetes client for our services: a kubeconfig of the node, no proxy, our errors."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING

import httpx2
from lightkube import AsyncClient, KubeConfig
from lightkube.core.exceptions import ApiError

from constellation.base.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["connect", "raise_ours", "status_of"]

_FIELD_MANAGER = "constellation"
_TIMEOUT_S = 10.0


def connect(kubeconfig: Path, *, timeout_s: float = _TIMEOUT_S) -> AsyncClient:
    """Make a client from a kubeconfig; it connects when it is first used.

    `timeout_s` bounds each wait of a call: for a connection, and for each part of an answer.

    Raises:
        Unavailable: the file is not there yet or cannot be used.
    """
    try:
        config = KubeConfig.from_file(kubeconfig)
        return AsyncClient(
            config=config,
            field_manager=_FIELD_MANAGER,
            trust_env=False,  # a proxy in the environment must not see the API
            timeout=httpx2.Timeout(timeout_s),
        )
    except Exception as error:
        raise Unavailable(f"Kubernetes API: {kubeconfig}: {error}") from error


@contextlib.contextmanager
def raise_ours() -> Iterator[None]:
    """Around calls: what the API refuses or does not answer leaves as `Unavailable`."""
    try:
        yield
    except ApiError as error:
        raise Unavailable(f"Kubernetes API: {error.status.code} {error.status.message}") from error
    except (httpx2.HTTPError, OSError, json.JSONDecodeError) as error:
        raise Unavailable(f"Kubernetes API: {str(error) or type(error).__name__}") from error


def status_of(error: ApiError) -> int:
    """Give the HTTP status of an error; 0 where it has none."""
    return int(error.status.code or 0)
