"""AWS on 127.0.0.1: moto's server as a process of its own, noting every call that it answers.

Started by tests as `python -m tests.fakes.aws_server LOG`; prints its port, then serves until its
standard input ends. LOG gets one line a call: `service:Action`.
"""

from __future__ import annotations

import io
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from collections.abc import Iterable


class Noting:
    """A WSGI application around another: writes down service and action of each request."""

    def __init__(self, inner: Any, log: Path) -> None:
        self._inner, self._log, self._lock = inner, log, threading.Lock()

    def __call__(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        body = environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        environment["wsgi.input"] = io.BytesIO(body)
        action = parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
        target = environment.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        if action or target:
            with self._lock, self._log.open("a") as file:
                file.write(f"{_service(environment)}:{action or target}\n")
        answer: Iterable[bytes] = self._inner(environment, start)
        return answer


def _service(environment: dict[str, Any]) -> str:
    # Signature Version 4: Credential=KEY/DATE/REGION/SERVICE/aws4_request
    scope = environment.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split(",")[0]
    parts = scope.split("/")
    return parts[3] if len(parts) == 5 else "?"


def main() -> None:
    application = Noting(DomainDispatcherApplication(create_backend_app), Path(sys.argv[1]))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    sys.stdout.write(f"{server.port}\n")
    sys.stdout.flush()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    main()
