"""How a control plane comes to ask its provider's API with what the owner gave last.

The cluster policy has it sealed (`trust.sealed_access`). KeyService alone of a node's programs has
the master secret, so KeyService opens it, has its form checked by the provider of this node, and
puts it where JoinService and operator read, and its part for the cloud's own components where these
do. What does not open changes nothing: the old one stays, and the owner's hand-over says that this
node has not taken it.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from constellation.base.errors import ConstellationError, Unavailable
from constellation.kube.node_record import load_node_record
from constellation.providers.select import check_access
from constellation.services.kept_access import KeptAccess
from constellation.services.keyservice.component_folder import ComponentFolder
from constellation.trust.sealed_access import unseal_access

if TYPE_CHECKING:
    from constellation.crypto.derive import MasterSecret
    from constellation.services.kept_policy import KeptPolicy

__all__ = ["AccessKeeper"]

_LOOK_EVERY_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessKeeper:
    """Follows the kept policy of one control plane."""

    master: MasterSecret
    kept: KeptPolicy
    components: ComponentFolder = field(default_factory=ComponentFolder)

    async def run(self) -> None:
        """Look at every policy for ever; what speaks against taking it is said once."""
        judged, said = b"", dict[str, str]()

        def take() -> None:
            nonlocal judged
            signed = self.kept.signed().policy
            if signed != judged:
                self.once()
                judged = signed

        while True:
            for what, look in (("provider access", take), ("cloud components", self.show)):
                try:
                    look()
                except ConstellationError as error:
                    if str(error) != said.get(what):
                        level = logging.INFO if isinstance(error, Unavailable) else logging.ERROR
                        reason = {"what": what, "reason": str(error)}
                        _log.log(level, "provider access stays as it was", extra=reason)
                    said[what] = str(error)
                else:
                    said.pop(what, None)
            await asyncio.sleep(_LOOK_EVERY_S)

    def once(self) -> None:
        """Take what the kept policy has, if it is another than what was taken.

        Raises:
            Untrusted: the owner did not sign the policy, or it was not sealed for this cluster.
            FormatError: it is no access to this node's provider.
            Unavailable: no policy or node record yet, or no room on the disk.
        """
        document, kept = self.kept.document, KeptAccess(state=self.kept.state)
        sealed = self.kept.verified().provider_access
        if not sealed or hashlib.sha256(sealed).digest() == kept.taken():
            return
        access = unseal_access(sealed, master=self.master, cluster_id=document.cluster_id)
        check_access(self._provider(), access)
        kept.take(access, sealed=sealed)
        _log.info("another provider access is used from now on")

    def show(self) -> None:
        """Let the cloud's own components read their part of what is kept.

        Raises:
            FormatError, Unavailable: as `ComponentFolder.follow`.
        """
        access = KeptAccess(state=self.kept.state).access()
        self.components.follow(access, provider=self._provider)

    def _provider(self) -> str:
        path = self.kept.state / "node.json"
        try:
            return load_node_record(path.read_bytes()).provider
        except OSError as error:
            raise Unavailable(f"{path}: {error.strerror}") from error
