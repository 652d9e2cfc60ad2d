"""Clients that count failed requests: to the API and to a Service, reads, writes and a watch.

The kept HTTP/2 connection obeys GOAWAY as RFC 9113, section 6.8 says: streams up to the named one
are finished, a request above it was not processed and goes to a new connection. Nothing else is
tried twice.
"""

from __future__ import annotations

import base64
import http.client
import json
import select
import socket
import ssl
import threading
import time
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
from ruamel.yaml import YAML

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.cluster.conftest import Workspace

__all__ = ["ApiProbe", "Gap", "ServiceProbe", "WriteProbe", "administrator"]

_TIMEOUT_S = 5.0
_FRAME_HEAD, _GOAWAY = 9, 7
_PATH = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"


class Gap:
    """The longest time between two answers that were successes, from all threads of a probe."""

    def __init__(self) -> None:
        self._lock, self._last_s, self._longest_s = threading.Lock(), time.monotonic(), 0.0

    def answered(self) -> None:
        """Note a success."""
        with self._lock:
            self._longest_s, self._last_s = self.longest_s(), time.monotonic()

    def longest_s(self) -> float:
        """Give the longest gap so far, the one that still lasts included, in seconds."""
        return max(self._longest_s, time.monotonic() - self._last_s)


class _Connection:
    """One HTTP/2 connection; one request at a time."""

    def __init__(self, host: str, port: int, context: ssl.SSLContext) -> None:
        self._authority = f"{host}:{port}"
        raw = socket.create_connection((host, port), timeout=_TIMEOUT_S)
        try:
            self._socket = context.wrap_socket(raw, server_hostname=host)
        except BaseException:
            raw.close()
            raise
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8")
        )
        self._h2.initiate_connection()
        self._last: int | None = None
        self._unread = b""
        self._send()

    def going_away(self) -> bool:
        """Read what came meanwhile; say whether the server takes no new request here."""
        while self._last is None and (
            self._socket.pending() or select.select([self._socket], [], [], 0)[0]
        ):
            if self._receive() is None:
                return True
        return self._last is not None

    def get(self, path: str) -> int | None:
        """Ask; gives the status, None where the server says that it did not process it."""
        stream = self._h2.get_next_available_stream_id()
        headers = (
            *((":method", "GET"), (":scheme", "https")),
            *((":authority", self._authority), (":path", path)),
        )
        self._h2.send_headers(stream, headers, end_stream=True)
        self._send()
        status, end = 0, time.monotonic() + _TIMEOUT_S
        while time.monotonic() < end:
            if self._last is not None and stream > self._last:
                return None
            events = self._receive()
            if events is None:
                raise ConnectionError("the server closed the connection")
            for event in events:
                if getattr(event, "stream_id", None) != stream:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    status = int(dict(event.headers)[":status"])  # type: ignore[index] # as text: see header_encoding
                elif isinstance(event, h2.events.StreamReset):
                    if event.error_code == h2.errors.ErrorCodes.REFUSED_STREAM:
                        return None
                    raise ConnectionError(f"stream reset: {event.error_code}")
                elif isinstance(event, h2.events.StreamEnded):
                    return status
        raise TimeoutError("no answer")

    def close(self) -> None:
        self._socket.close()

    def _send(self) -> None:
        self._socket.sendall(self._h2.data_to_send())

    def _receive(self) -> list[h2.events.Event] | None:
        data = self._socket.recv(65536)
        if not data:
            return None
        self._unread += data
        events = [event for frame in self._frames() for event in self._h2.receive_data(frame)]
        for event in events:
            if isinstance(event, h2.events.DataReceived):
                self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self._send()
        return events

    def _frames(self) -> Iterator[bytes]:
        """Give whole frames (RFC 9113, section 4.1), and note a GOAWAY without h2.

        h2 takes a connection for closed then, and would refuse the answers that still come.
        """
        while len(self._unread) >= _FRAME_HEAD:
            size = _FRAME_HEAD + int.from_bytes(self._unread[:3], "big")
            if len(self._unread) < size:
                return
            frame, self._unread = self._unread[:size], self._unread[size:]
            if frame[3] == _GOAWAY:
                self._last = int.from_bytes(frame[9:13], "big") & 0x7FFFFFFF
            else:
                yield frame


class ApiProbe:
    """Asks the API through the load balancer as the administrator; `failed` says when and how."""

    def __init__(self, workspace: Workspace, *, every_s: float = 0.1) -> None:
        self._host, self._port, _, self._context = administrator(workspace)
        self._every_s = every_s
        self.asked, self.failed, self.gap = 0, list[str](), Gap()
        self._end = threading.Event()
        self._threads = [
            threading.Thread(target=self._repeat, args=(once,))
            for once in (self._fresh, self._kept)
        ]
        self._connection: _Connection | None = None

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(timeout=30)
        if self._connection is not None:
            self._connection.close()

    def _repeat(self, once: Callable[[], int]) -> None:
        while not self._end.wait(self._every_s):
            self.asked += 1
            at, started = time.strftime("%H:%M:%S"), time.monotonic()
            try:
                status = once()
                if status == http.HTTPStatus.OK:
                    self.gap.answered()
                else:
                    self.failed.append(f"{at} {once.__name__}: {status}")
            except (OSError, h2.exceptions.ProtocolError) as error:
                self.failed.append(f"{at} {once.__name__}: {error!r}")
            if time.monotonic() - started > _TIMEOUT_S:
                self.failed.append(f"{at} {once.__name__}: over {_TIMEOUT_S} s")

    def _fresh(self) -> int:
        connection = self._connect()
        try:
            return connection.get(_PATH) or 0
        finally:
            connection.close()

    def _kept(self) -> int:
        try:
            if self._connection is None or self._connection.going_away():
                self._renew()
            assert self._connection is not None
            status = self._connection.get(_PATH)
            if status is None:
                self._renew()
                status = self._connection.get(_PATH)
        except (OSError, h2.exceptions.ProtocolError):
            self._connection = None
            raise
        return status or 0

    def _renew(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._connect()

    def _connect(self) -> _Connection:
        return _Connection(self._host, self._port, self._context)


def administrator(
    workspace: Workspace,
) -> tuple[str, int, ssl.SSLContext, ssl.SSLContext]:
    """Give host and port of the API, and contexts with the administrator: HTTP/1.1, HTTP/2."""
    text = (workspace.folder / "constellation-admin.conf").read_text()
    config: dict[str, Any] = YAML(typ="safe").load(text)
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    url = urlsplit(cluster["server"])
    certificate = workspace.folder / "probe.pem"
    certificate.touch(mode=0o600)
    certificate.write_text(_pem(user["client-certificate-data"]) + _pem(user["client-key-data"]))
    contexts = []
    for protocol in ("http/1.1", "h2"):
        context = ssl.create_default_context(cadata=_pem(cluster["certificate-authority-data"]))
        context.load_cert_chain(certificate)
        context.set_alpn_protocols([protocol])
        contexts.append(context)
    return url.hostname or "", url.port or 443, contexts[0], contexts[1]


def _pem(data: str) -> str:
    return base64.b64decode(data).decode()


class ServiceProbe:
    """Asks a NodePort through the load balancer, each time on a fresh connection."""

    def __init__(self, workspace: Workspace, *, port: int, every_s: float, threads: int) -> None:
        self._host, _, _, _ = administrator(workspace)
        self._port, self._every_s = port, every_s
        self.asked, self.failed, self.in_a_row, self.gap = 0, list[str](), 0, Gap()
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._repeat) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(timeout=30)

    def _repeat(self) -> None:
        while not self._end.wait(self._every_s):
            self.asked += 1
            at, started = time.strftime("%H:%M:%S"), time.monotonic()
            connection = http.client.HTTPConnection(self._host, self._port, timeout=_TIMEOUT_S)
            try:
                connection.request("GET", "/")
                status = connection.getresponse().status
                if status == http.HTTPStatus.OK:
                    self.in_a_row += 1
                    self.gap.answered()
                else:
                    self.failed.append(f"{at}: {status}")
                    self.in_a_row = 0
            except (OSError, http.client.HTTPException) as error:
                self.failed.append(f"{at}, after {time.monotonic() - started:.1f} s: {error!r}")
                self.in_a_row = 0
            finally:
                connection.close()


class WriteProbe:
    """Writes a counter to the API, and watches it from the first write to the last."""

    _NAME = "drill"
    _PATH = "/api/v1/namespaces/default/configmaps"

    def __init__(self, workspace: Workspace, *, every_s: float) -> None:
        self._host, self._port, self._context, _ = administrator(workspace)
        self._every_s = every_s
        self.acknowledged, self.failed = 0, list[str]()
        self.lost, self.missed = 0, 0
        self._written: list[int] = []
        self._seen: set[int] = set()
        self._end, self._watched = threading.Event(), threading.Event()
        self._version = ""
        self._threads = [
            threading.Thread(target=self._write),
            threading.Thread(target=self._watch, daemon=True),
        ]

    def __enter__(self) -> Self:
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": self._NAME}}
        made = self._call("POST", self._PATH, body)
        self._version = made["metadata"]["resourceVersion"]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._threads[0].join(timeout=30)
        last = self._written[-1] if self._written else 0
        end = time.monotonic() + 20
        while last not in self._seen and time.monotonic() < end:
            time.sleep(0.2)
        self._watched.set()
        self.acknowledged = len(self._written)
        self.missed = len(set(self._written) - self._seen)
        kept = self._call("GET", f"{self._PATH}/{self._NAME}")
        self.lost = int(int(kept.get("data", {}).get("n", "0")) < last)
        self._call("DELETE", f"{self._PATH}/{self._NAME}")

    def _write(self) -> None:
        number = 0
        while not self._end.wait(self._every_s):
            number += 1
            at = time.strftime("%H:%M:%S")
            try:
                self._call("PATCH", f"{self._PATH}/{self._NAME}", {"data": {"n": str(number)}})
                self._written.append(number)
            except (OSError, http.client.HTTPException, ValueError) as error:
                self.failed.append(f"{at}: {error!r}")

    def _watch(self) -> None:
        """Hold a watch; where the server ends it, go on from the last event, as clients do."""
        while not self._watched.is_set():
            query = (
                f"?watch=1&fieldSelector=metadata.name%3D{self._NAME}"
                f"&resourceVersion={self._version}"
            )
            connection = self._connect(timeout_s=60)
            try:
                connection.request("GET", self._PATH + query)
                reply = connection.getresponse()
                while line := reply.readline():
                    item = json.loads(line)["object"]
                    self._version = item["metadata"]["resourceVersion"]
                    self._seen.add(int(item.get("data", {}).get("n", "0")))
            except (OSError, http.client.HTTPException, ValueError, KeyError):
                time.sleep(0.05)
            finally:
                connection.close()

    def _connect(self, *, timeout_s: float = _TIMEOUT_S) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection(
            self._host, self._port, context=self._context, timeout=timeout_s
        )

    def _call(self, verb: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        kind = "application/merge-patch+json" if verb == "PATCH" else "application/json"
        connection = self._connect()
        try:
            data = json.dumps(body) if body is not None else None
            connection.request(verb, path, body=data, headers={"Content-Type": kind})
            reply = connection.getresponse()
            text = reply.read()
            if reply.status >= http.HTTPStatus.BAD_REQUEST:
                raise ValueError(f"{reply.status} {text[:100]!r}")
            answer: dict[str, Any] = json.loads(text)
            return answer
        finally:
            connection.close()
