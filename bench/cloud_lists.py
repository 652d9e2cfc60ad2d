"""What does a list of 1,000 machines cost on Azure, Google Cloud and OpenStack? Calls and CPU.

Each cloud's own client against that cloud's fake, which runs in this process too: its CPU is in the
figure. Pages are as large as the services give them.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from constellation.providers.azure.metadata import AzureMetadata
from constellation.providers.gcp.metadata import GcpMetadata
from constellation.providers.openstack.access import dump_access
from constellation.providers.openstack.metadata import MetadataService, OpenStackMetadata
from tests.fakes.arm import FakeAzure
from tests.fakes.gce import FakeGce
from tests.fakes.openstack import FakeOpenStack

if TYPE_CHECKING:
    from constellation.providers.protocols import Metadata
    from tests.fakes.rest_service import RestService

__all__ = ["measure"]

_MACHINES = 1000


async def measure() -> dict[str, Any]:
    """Give calls of the API, seconds of CPU and machines, by cloud."""
    azure, gce, openstack = FakeAzure(page_size=400), FakeGce(), FakeOpenStack()
    for _ in range(_MACHINES - 2):
        azure.add(f"{azure.uid}-worker-default")
        gce.add("worker_default", f"{gce.made:04x}")
        openstack.add("worker_default", "worker")
    with tempfile.TemporaryDirectory() as folder:
        access = Path(folder) / "openstack.json"
        async with azure.serving(), gce.serving(), openstack.serving():
            access.write_bytes(dump_access(openstack.access()).reveal())
            source = MetadataService(url=openstack.metadata.url)
            return {
                "azure": await _list(
                    AzureMetadata(imds_url=azure.imds.url, arm_url=azure.arm.url), azure.arm
                ),
                "gcp": await _list(
                    GcpMetadata(metadata_url=gce.metadata_url, compute_url=gce.compute_url),
                    gce.compute,
                ),
                "openstack": await _list(
                    OpenStackMetadata(source=source, access=access), openstack.service
                ),
            }


async def _list(metadata: Metadata, service: RestService) -> dict[str, Any]:
    await metadata.peers()
    service.requests.clear()
    began = time.process_time()
    found = await metadata.peers()
    return {
        "calls": len(service.requests),
        "cpu_s_with_the_fake": round(time.process_time() - began, 3),
        "machines": len(found),
    }
