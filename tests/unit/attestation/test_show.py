"""Every published file of a kind that we know is named, and junk is a format error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constellation.attestation.policy import AtLeast, Exactly, OneOf, Unchecked
from constellation.attestation.policy_file import dump_policy, parse_policy
from constellation.attestation.show import show
from constellation.base.errors import FormatError
from tests.vectors import evidence

FILES = {
    "azure/snp-v1-milan/hcl_report.bin": "Azure HCL report",
    "azure/tdx-v1/hcl_report.bin": "Azure HCL report",
    "azure/tdx-v1/td_quote.bin": "TDX or SGX quote",
    "azure/snp-v1-milan/tpm_quote.msg": "TPM quote (TPMS_ATTEST)",
    "azure/snp-v1-milan/snp_report.bin": "SEV-SNP report",
    "azure/snp-v1-milan/vcek.der": "VCEK or VLEK certificate",
    "azure/snp-v1-milan/pcrs.json": "register values",
    "azure/akcert/ak_01.der": "certificates",
    "azure/akcert/azure_vtpm_ca_03.pem": "certificates",
    "azure/vtpm-quote-kinvolk/akpub.pem": "key",
    "gcp/attest-gce-cos-85-no-nonce/ak_pub.bin": "key",
    "gcp/attest-gce-cos-85-no-nonce/quote_sha256.tpmtsig": "TPM signature (TPMT_SIGNATURE)",
    "gcp/attest-gce-cos-85-no-nonce/event_log.bin": "TCG event log",
    "gcp/vtpm-gcp-amd/ak_chain.pem": "certificates",
    "aws/nitrotpm-vaportpm/document.cose": "AWS Nitro attestation document",
    "aws/nitro-enclave-nsm/document.cose": "AWS Nitro attestation document",
    "amd-snp/crl/milan_crl.der": "certificate revocation list",
    "intel-tdx/collateral/tdx-00806f-2025-07.json": "TDX collateral",
    "ima/ascii_runtime_measurements.txt": "IMA measurement list",
}


@pytest.mark.parametrize("name", FILES)
def test_a_published_file_is_named_and_its_fields_are_shown(name: str) -> None:
    found = show((evidence.folder() / name).read_bytes())
    assert found.kind == FILES[name]
    assert found.fields
    assert all(str(field) for field in found.fields)


@given(st.binary(max_size=100))
def test_junk_is_a_format_error_or_shown(junk: bytes) -> None:
    try:
        show(junk)
    except FormatError:
        return


def test_a_policy_file_is_read_as_it_was_written() -> None:
    policy = {
        "a": Exactly(b"\1"), "b": OneOf((1, b"\2")), "c": AtLeast(3), "d": Unchecked("why"),
    }  # fmt: skip
    assert parse_policy(dump_policy(policy)) == policy


@pytest.mark.parametrize(
    "text",
    [
        "[]", "{", '{"a": 1}', '{"a": {}}', '{"a": {"exactly": "x"}}', '{"a": {"exactly": true}}',
        '{"a": {"exactly": 1, "at_least": 1}}', '{"a": {"at_least": "1"}}', '{"a": {"one_of": 1}}',
        '{"a": {"unchecked": " "}}', '{"a": {"exactly": null}}',
        '{"a":{"at_least":1},"a":{"at_least":1}}',
        "[" * 5000,
    ],
)  # fmt: skip
def test_each_fault_of_a_policy_file_is_a_format_error(text: str) -> None:
    with pytest.raises(FormatError):
        parse_policy(text.encode())
