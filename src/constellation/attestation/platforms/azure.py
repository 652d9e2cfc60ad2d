"""What Azure's paravisor says of a confidential VM's configuration, as claims and rules.

Source: Microsoft, "Azure confidential VMs: guest attestation, runtime claims". Authentic once the
runtime data is bound to a chip's report; true as far as the paravisor is believed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from constellation.attestation.policy import Exactly, Rule, Unchecked

if TYPE_CHECKING:
    from constellation.attestation.hcl.runtime_data import RuntimeData

__all__ = ["configuration_claims", "configuration_rules"]


def configuration_claims(runtime: RuntimeData) -> dict[str, bytes | int]:
    """Give the claims; `azure.tpm_persisted` is 0 also where an older image does not say."""
    found = runtime.configuration
    return {
        "azure.console_enabled": int(found.console_enabled),
        "azure.secure_boot": int(found.secure_boot),
        "azure.tpm_enabled": int(found.tpm_enabled),
        "azure.tpm_persisted": int(bool(found.tpm_persisted)),
        "azure.root_cert_thumbprint": found.root_cert_thumbprint.encode(),
        "azure.vm_unique_id": found.vm_unique_id.encode(),
        "azure.user_data": runtime.user_data,
    }


def configuration_rules() -> dict[str, Rule]:
    """Give a rule for each claim."""
    return {
        "azure.console_enabled": Unchecked("the serial console has no login on node images"),
        "azure.secure_boot": Unchecked("PCR 4, 9 and 11 pin the image more tightly"),
        "azure.tpm_enabled": Exactly(1),
        "azure.tpm_persisted": Unchecked("the AK binds this boot; nothing is sealed to the vTPM"),
        "azure.root_cert_thumbprint": Unchecked("the AK is trusted by the chip, not by this root"),
        "azure.vm_unique_id": Unchecked("names are given by admission"),
        "azure.user_data": Unchecked("set by the guest; the binding is in the quote"),
    }
