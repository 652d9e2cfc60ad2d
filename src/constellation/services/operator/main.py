"""Starts the operator of a control plane: wiring only."""

from __future__ import annotations

import asyncio
from pathlib import Path

from constellation.base import logs
from constellation.base.errors import Unavailable
from constellation.base.retry import until_available
from constellation.kube.client import connect
from constellation.kube.etcd import Etcd
from constellation.kube.node_record import NODE_JSON, load_node_record
from constellation.providers.select import metadata
from constellation.services.operator.loop import Operator

__all__ = ["main"]

_KUBERNETES = Path("/etc/kubernetes")
_FILES_WITHIN_S = 300.0


async def _run() -> None:
    try:
        record = load_node_record(NODE_JSON.read_bytes())
    except OSError as error:
        raise Unavailable(f"{NODE_JSON}: {error.strerror}") from error
    operator = Operator(
        connect(_KUBERNETES / "admin.conf"),
        provider=metadata(record.provider),
        etcd=Etcd(_KUBERNETES / "pki"),
        me=record.name,
        address=record.address,
    )
    await operator.run()


def main() -> None:
    """Run until stopped; what is missing on the disk is waited for, 5 minutes at most."""
    logs.set_up("operator")
    asyncio.run(until_available(_run, deadline_s=_FILES_WITHIN_S))


if __name__ == "__main__":
    main()
