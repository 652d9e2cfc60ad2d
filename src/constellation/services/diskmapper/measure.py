"""Before this node talks to any peer it measures whose node it is: node document into PCR 8.

The document comes from the provider, which may lie: then PCR 8 says so to everybody who appraises
this node. Source: design, section 6.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.base.errors import Rejected
from constellation.base.files import write_atomic
from constellation.base.retry import until_available
from constellation.trust.node_document import NodeDocument, parse_node_document

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from constellation.attestation.model import Variant
    from constellation.providers.protocols import Metadata

__all__ = ["measure"]

_METADATA_DEADLINE_S = 60.0


async def measure(
    metadata: Metadata,
    *,
    variant: Variant,
    document_path: Path,
    extend: Callable[[bytes], Awaitable[None]],
) -> NodeDocument:
    """Fetch the node document, measure its very bytes with `extend`, then keep them.

    Args:
        metadata: the provider's.
        variant: what this machine attests with, from its command line.
        document_path: where the measured bytes are kept.
        extend: measures the bytes into PCR 8.

    Raises:
        Rejected: a document for another variant.
        FormatError: not a node document.
        Unavailable: metadata or TPM did not answer.
    """
    data = await until_available(metadata.user_data, deadline_s=_METADATA_DEADLINE_S)
    document = parse_node_document(data)
    if document.variant is not variant:
        raise Rejected((f"node document: variant {document.variant}, this machine has {variant}",))
    await extend(data)
    write_atomic(document_path, data)
    return document
