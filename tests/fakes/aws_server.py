"""AWS on 127.0.0.1, its metadata service on 169.254.169.254: moto's server in its own process.

Started by tests as `python -m tests.fakes.aws_server FOLDER`, as a rule in a network namespace of
their own. It prints its port, then serves until its standard input ends. In FOLDER it notes every
call in `calls` (`service:Action`, a line each) and with its caller in `callers` (JSON, a line
each), reads who asks for metadata from `machine.json`, and hands out `faults` (a line each, used up
from the top: `service:Action status Code`). `--also HOST`: there too, beside 127.0.0.1;
`--metadata HOST:PORT`: the metadata service.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from moto.autoscaling.models import autoscaling_backends
from moto.elb.models import FakeHealthCheck, elb_backends
from moto.elbv2.models import elbv2_backends
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

if TYPE_CHECKING:
    from collections.abc import Iterable

SESSION = "AQAEAsession=="
_DRY = ("ec2:CreateVpc",)
_CLASSIC = ".elb.amazonaws.com"


class Noting:
    """A WSGI application around moto's: notes service and action, and refuses what is asked for."""

    def __init__(self, inner: Any, folder: Path) -> None:
        self._inner, self._folder, self._lock = inner, folder, threading.Lock()
        self._one = threading.Lock()

    def __call__(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        body = environment["wsgi.input"].read(int(environment.get("CONTENT_LENGTH") or 0))
        environment["wsgi.input"] = io.BytesIO(body)
        action = parse_qs(body.decode(errors="replace")).get("Action", [""])[0]
        target = environment.get("HTTP_X_AMZ_TARGET", "").rpartition(".")[2]
        if action or target:
            call = f"{_service(environment)}:{action or target}"
            with self._lock:
                with (self._folder / "calls").open("a") as file:
                    file.write(f"{call}\n")
                with (self._folder / "callers").open("a") as file:
                    agent = environment.get("HTTP_USER_AGENT", "")
                    file.write(json.dumps({"call": call, "agent": agent}) + "\n")
                fault = self._fault(call)
            if fault is None and call in _DRY and "DryRun=true" in body.decode().split("&"):
                # moto 5.2 carries these out; AWS documents that it does not
                fault = ("412", "DryRunOperation")
            if fault is not None:
                status, code = fault
                start(f"{status} {code}", [("Content-Type", "text/xml"), ("Retry-After", "1")])
                return [f"<R><Error><Code>{code}</Code><Message>no</Message></Error></R>".encode()]
        # moto's lists are not made for several threads: rules got lost
        with self._one:
            if action == "DeleteAutoScalingGroup":
                _unprotect(parse_qs(body.decode())["AutoScalingGroupName"][0])
            if action == "CreateLoadBalancer":
                return self._make_balancer(environment, start)
            return list(self._inner(environment, start))

    def _make_balancer(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        """Let moto make one, then give it what AWS does and moto does not."""
        said: list[tuple[str, list[tuple[str, str]]]] = []
        body = b"".join(self._inner(environment, lambda *head: said.append((head[0], head[1]))))
        _check_health()
        for before, now in _name_network_balancers():
            body = body.replace(before.encode(), now.encode())
        ((status, headers),) = said
        kept = [(k, v) for k, v in headers if k.lower() != "content-length"]
        start(status, [*kept, ("Content-Length", str(len(body)))])
        return [body]

    def _fault(self, call: str) -> tuple[str, str] | None:
        file = self._folder / "faults"
        lines = file.read_text().splitlines() if file.exists() else []
        for number, line in enumerate(lines):
            wanted, status, code = line.split()
            if wanted == call:
                file.write_text("\n".join((*lines[:number], *lines[number + 1 :])))
                return status, code
        return None


def _unprotect(name: str) -> None:
    """Let ForceDelete take all machines along, as AWS documents; moto keeps protected ones."""
    for account in autoscaling_backends.values():
        for backend in account.values():
            if name in backend.autoscaling_groups:
                for state in backend.autoscaling_groups[name].instance_states:
                    state.protected_from_scale_in = False


def _check_health() -> None:
    """Give classic load balancers the health check that AWS begins with; moto leaves it out."""
    for account in elb_backends.values():
        for backend in account.values():
            for balancer in backend.load_balancers.values():
                if balancer.health_check is None:
                    port = balancer.listeners[0].instance_port
                    balancer.health_check = FakeHealthCheck("5", "10", "2", "30", f"TCP:{port}")


def _name_network_balancers() -> list[tuple[str, str]]:
    """Name network load balancers as AWS does (a classic one's name ends otherwise)."""
    named = []
    for account in elbv2_backends.values():
        for region, backend in account.items():
            for balancer in backend.load_balancers.values():
                before = balancer.dns_name
                if balancer.type == "network" and before.endswith(_CLASSIC):
                    marks = f"{balancer.name}-{balancer.arn.rpartition('/')[2]}"
                    balancer.dns_name = f"{marks}.elb.{region}.amazonaws.com"
                    named.append((before, balancer.dns_name))
    return named


def _service(environment: dict[str, Any]) -> str:
    # Signature Version 4: Credential=KEY/DATE/REGION/SERVICE/aws4_request
    scope = environment.get("HTTP_AUTHORIZATION", "").partition("Credential=")[2].split(",")[0]
    parts = scope.split("/")
    return parts[3] if len(parts) == 5 else "?"


class Metadata:
    """The metadata service, version 2 only, for the one machine of `machine.json`."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / "machine.json"

    def __call__(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        path, method = environment["PATH_INFO"], environment["REQUEST_METHOD"]
        if (method, path) == ("PUT", "/latest/api/token"):
            seconds = environment.get("HTTP_X_AWS_EC2_METADATA_TOKEN_TTL_SECONDS", "21600")
            start("200 OK", [("X-aws-ec2-metadata-token-ttl-seconds", seconds)])
            return [SESSION.encode()]
        if environment.get("HTTP_X_AWS_EC2_METADATA_TOKEN") != SESSION:
            start("401 Unauthorized", [])
            return [b""]
        found = json.loads(self._file.read_text()).get(path)
        start("200 OK" if found is not None else "404 Not Found", [])
        return [(found or "").encode()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--also", default="", metavar="HOST")
    parser.add_argument("--metadata", default="", metavar="HOST:PORT")
    given = parser.parse_args()
    application = Noting(DomainDispatcherApplication(create_backend_app), given.folder)
    servers = [make_server("127.0.0.1", 0, application, threaded=True)]
    if given.also:
        servers.append(make_server(given.also, servers[0].port, application, threaded=True))
    if given.metadata:
        host, _, port = given.metadata.rpartition(":")
        servers.append(make_server(host, int(port), Metadata(given.folder), threaded=True))
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdout.write(f"{servers[0].port}\n")
    sys.stdout.flush()
    sys.stdin.read()


if __name__ == "__main__":
    main()
