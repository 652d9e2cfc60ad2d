"""Writes of which none may be lost: each makes an object of its own, and all are looked for after.

An object a write, so that one which was given up and takes effect late cannot hide another.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from tests.cluster.probes import Gap, administrator

if TYPE_CHECKING:
    from tests.cluster.conftest import Workspace

__all__ = ["Ledger"]

_TIMEOUT_S = 5.0
_LIST_WITHIN_S = 60.0
_PAGE = 500


class Ledger:
    """Writes to the API through the load balancer, five a second, none of them tried twice."""

    def __init__(self, workspace: Workspace, *, namespace: str, every_s: float = 0.2) -> None:
        self._host, self._port, self._context, _ = administrator(workspace)
        self._namespace, self._every_s = namespace, every_s
        self.acknowledged = set[str]()
        self.failed, self.gap = list[str](), Gap()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def __enter__(self) -> Self:
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": self._namespace},
        }
        self._call("POST", "/api/v1/namespaces", namespace)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(timeout=30)

    def lost(self) -> tuple[str, ...]:
        """Name the acknowledged writes that are not there. Raises OSError, ValueError."""
        end = time.monotonic() + _LIST_WITHIN_S
        while True:
            try:
                return tuple(sorted(self.acknowledged - self._kept()))
            except (OSError, http.client.HTTPException, ValueError):
                if time.monotonic() > end:
                    raise
                time.sleep(1)

    @property
    def _objects(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/configmaps"

    def _kept(self) -> set[str]:
        found, more = set[str](), ""
        while True:
            page = self._call("GET", f"{self._objects}?limit={_PAGE}{more}")
            found |= {item["metadata"]["name"] for item in page["items"]}
            if not (token := page["metadata"].get("continue")):
                return found
            more = f"&continue={token}"

    def _write(self) -> None:
        number = 0
        while not self._end.wait(self._every_s):
            number += 1
            name, at = f"write-{number}", time.strftime("%H:%M:%S")
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}}
            try:
                self._call("POST", self._objects, body)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append(f"{at}: {error!r}")
            else:
                self.acknowledged.add(name)
                self.gap.answered()

    def _call(self, verb: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        connection = http.client.HTTPSConnection(
            self._host, self._port, context=self._context, timeout=_TIMEOUT_S
        )
        try:
            data = json.dumps(body) if body is not None else None
            connection.request(verb, path, body=data, headers={"Content-Type": "application/json"})
            reply = connection.getresponse()
            text = reply.read()
            if reply.status >= http.HTTPStatus.BAD_REQUEST:
                raise ValueError(f"{reply.status} {text[:100]!r}")
            answer: dict[str, Any] = json.loads(text)
            return answer
        finally:
            connection.close()
