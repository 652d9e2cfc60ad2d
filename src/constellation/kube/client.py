"""A typed Kubernetes client for our services: a kubeconfig of the node, no proxy, our errors.

Its certificate is renewed twice a day: a replaced file is used from the next call on.
"""

from __future__ import annotations

import contextlib
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import httpx2
from lightkube import AsyncClient, KubeConfig
from lightkube.config.client_adapter import verify_cluster
from lightkube.core.exceptions import ApiError

from constellation.base.errors import FormatError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lightkube.config.kubeconfig import SingleConfig
    from lightkube.config.models import User

__all__ = ["connect", "raise_ours", "status_of"]

_FIELD_MANAGER = "constellation"
_TIMEOUT_S = 10.0
_log = logging.getLogger(__name__)


def connect(kubeconfig: Path, *, timeout_s: float = _TIMEOUT_S) -> AsyncClient:
    """Make a client from a kubeconfig; it connects when it is first used.

    `timeout_s` bounds each wait of a call: for a connection, and for each part of an answer.

    Raises:
        Unavailable: the file is not there yet or cannot be used.
    """
    try:
        config, user = _read(kubeconfig)
        return AsyncClient(
            config=config,
            field_manager=_FIELD_MANAGER,
            trust_env=False,  # a proxy in the environment must not see the API
            timeout=httpx2.Timeout(timeout_s),
            transport=_Renewed(config, user),
        )
    except Exception as error:
        raise Unavailable(f"Kubernetes API: {kubeconfig}: {error}") from error


def _read(kubeconfig: Path) -> tuple[SingleConfig, User]:
    config = KubeConfig.from_file(kubeconfig).get()
    if config is None or config.user is None:
        raise FormatError("names no user")
    return config, config.user


class _Renewed(httpx2.AsyncBaseTransport):
    """Speaks with the certificate that lies on the disk now.

    The API server judges the certificate of a connection at each call, so connections of the
    replaced one are left. They are closed when the next one comes, long after their last call.
    """

    def __init__(self, config: SingleConfig, user: User) -> None:
        self._config, self._user = config, user
        self._loaded = _version(config, user)
        self._now = _transport(config, user)
        self._before: httpx2.AsyncHTTPTransport | None = None
        self._useless = self._loaded

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; see the base class."""
        found = _version(self._config, self._user)
        if found != self._loaded:
            await self._replace(found)
        return await self._now.handle_async_request(request)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._now.aclose()
        if self._before is not None:
            await self._before.aclose()

    async def _replace(self, found: tuple[int, int]) -> None:
        try:
            made = _transport(self._config, self._user)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            if found != self._useless:  # tried again at each call, said once
                _log.warning("client certificate was not reloaded", extra={"reason": str(error)})
            self._useless = found
            return
        self._loaded = found
        old, self._before, self._now = self._before, self._now, made
        if old is not None:
            await old.aclose()


def _transport(config: SingleConfig, user: User) -> httpx2.AsyncHTTPTransport:
    context = verify_cluster(config.cluster, user, config.abs_file, trust_env=False)
    return httpx2.AsyncHTTPTransport(verify=context, trust_env=False)


def _version(config: SingleConfig, user: User) -> tuple[int, int]:
    """Tell one content of the certificate's file, which is replaced as a whole, from another."""
    if not user.client_cert:
        return (0, 0)
    try:
        status = Path(config.abs_file(user.client_cert)).stat()
    except OSError:
        return (0, 0)
    return status.st_ino, status.st_mtime_ns


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
