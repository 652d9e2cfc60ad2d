"""Was evidence refused for the reason that its entry names?

Entries say why in words of their own, often several reasons at once; a refusal is for the right
reason if it is of the class, and says the words, that belong to one of them here. Checks come in an
order: a reason that an earlier check of the same bytes may pre-empt lists that check too.
"""

from __future__ import annotations

import re

from constellation.base.errors import ConstellationError, FormatError, Rejected, Untrusted

__all__ = ["REFUSALS", "fits"]

Refusals = type[ConstellationError] | tuple[type[ConstellationError], ...]

REFUSALS = (Untrusted, FormatError, Rejected)
"""What a refusal can be; anything else is a crash."""

_FORM = (
    r"want |left over|are left|is missing|not JSON|not zero|reserved byte|does not fit|at most|"
    r"empty|ends too early|not base64|certificate at 0x|no zeros|unknown algorithm"
)
_CHAIN = r"chain|issuer|none of the given roots|did not sign|signature|certificate"
_SIGNED = r"signature|did not make|did not sign|sigAlg|TPMT_SIGNATURE"

# words of an entry -> words of ours; the first line whose words an entry has decides
_KNOWN: tuple[tuple[str, Refusals, str], ...] = (
    # time
    (r"not yet valid", Untrusted, r"not yet valid|valid from"),
    (r"CRL past nextUpdate|CRL (is )?(stale|expired)", (Untrusted, Rejected), r"crl\.current|CRL"),
    (r"expired|nextUpdate passed", Untrusted, r"expired|valid from|not yet valid"),
    # collateral
    (r"(PCK )?CRL of another CA", Untrusted, r"PCK CRL: of"),
    (r"PCK CRL signature", Untrusted, r"PCK CRL: its issuer"),
    (r"root CRL signature", Untrusted, r"root CA CRL: its issuer"),
    (r"(root|PCK) CRL missing", Untrusted, r"CRL is missing"),
    (r"revoked", Untrusted, r"revoked"),
    (r"TCB info signature", Untrusted, r"TCB info: signature"),
    (r"QE identity signature", Untrusted, r"QE identity: signature"),
    (r"QE identity id", Untrusted, r"QE identity: of"),
    # another platform's statement may be of another time than the rest
    (r"FMSPC mismatch", Untrusted, r"FMSPC|TCB info: (expired|not yet valid)"),
    (r"(TCB info|QE identity|signing chain) missing", (Untrusted, FormatError), r"missing"),
    (r"TCB signing chain", (Untrusted, FormatError), r"TCB signing chain|Intel chain"),
    (r"TCB info id", Untrusted, r"TCB info: for"),
    (r"TCB level not supported|no matching TCB level", Untrusted, r"TCB level not supported"),
    # form
    (r"unsupported signature algorithm", Untrusted, r"unsupported signature algorithm"),
    (r"unsupported PCK certificate form", FormatError, r"PCK certification data is"),
    (r"version/TEE combination", FormatError, r"is for SGX|version"),
    (r"unsupported version", FormatError, r"version"),
    (r"attestation key type", FormatError, r"attestation key type"),
    (r"TEE type", FormatError, r"TEE type|reserved byte"),
    (r"attestation key not on curve|attestation key$", Untrusted, r"attestation key"),
    (r"signature data length|size of certificate data", FormatError,
     r"signature data|certification data"),
    (r"certification data", FormatError, r"certification data"),
    (r"body type|body size", FormatError, r"body"),
    (r"unsigned tail|must-be-zero", FormatError, r"reserved byte"),
    (r"too short|truncated", FormatError, rf"{_FORM}|signature data|TPMS_|HCL|event|CBOR"),
    (r"trailing (data|byte)|too long", (FormatError, Untrusted), rf"{_FORM}|trailing|no zeros"),
    (r"unknown hash type", FormatError, r"hash_type"),
    (r"variable data size", FormatError, r"runtime data|data_size"),
    (r"HCL header signature", FormatError, r"HCL report: signature"),
    (r"HCL version|request type", FormatError, r"HCL report: (version|request_type)"),
    (r"report size|data size", FormatError, r"_size"),
    (r"HCL status", Untrusted, r"status"),
    (r"reserved bytes", FormatError, r"not zero|reserved"),
    (r"report type", (FormatError, Untrusted), r"report_type|expected|not zero|report data"),
    (r"CBOR", FormatError, r"Nitro"),
    (r"COSE algorithm", (FormatError, Untrusted), r"Nitro"),
    (r"COSE signature", (Untrusted, FormatError), r"Nitro"),
    # event logs and lists
    (r"event size", FormatError, r"data size|event size|eventSize|at most|are left"),
    (r"digest count", FormatError, r"digest|count"),
    (r"unknown digest algorithm", FormatError, r"unknown algorithm|digest"),
    (r"truncated event", FormatError, r"are left|digest|event"),
    (r"StartupLocality", Untrusted, r"StartupLocality"),
    (r"separator data|event data|does not (hash to|match) its digest", Untrusted, r"digest"),
    (r"duplicate separator|two separators", Untrusted, r"separator"),
    (r"template hash", (Untrusted, FormatError), r"template hash"),
    # a digest that its own event's data shows to be wrong is refused before the replay
    (r"replay|order matters|PCR \d+ \(\w+\)", Untrusted,
     r"replays to|lacks bank|no digests|does not hash to its digest"),
    (r"empty log", FormatError, r"empty"),
    # registers and quotes
    (r"PCR \d+ missing", (Untrusted, FormatError), r"PCR|pcr|register"),
    (r"PCR digest", (Untrusted, FormatError), r"pcrDigest|PCR digest|registers|PCRs: values"),
    (r"nonce|challenge", Untrusted, r"extraData|nonce"),
    (r"TPM_GENERATED", Untrusted, r"magic"),
    (r"magic", (Untrusted, FormatError), r"magic"),
    (r"not a quote", (Untrusted, FormatError), r"want a quote"),
    (r"SHA-?1", Untrusted, r"SHA-1"),
    (r"TPM 1\.2", FormatError, r"TPM 1\.2"),
    (r"not restricted|AK attributes|fixedTPM", Untrusted, r"AK: "),
    (r"EK certificate|not an AK certificate", Untrusted, r"it is not an"),
    (r"report[ _]data (differs|expected|not)|^report data$", Untrusted, r"report data"),
    # binding
    (r"runtime data hash|report data mismatch|variable data digest", (Untrusted, FormatError),
     r"the runtime data has|report data|runtime data|HCL report|expected a TD|quote by the attest"),
    (r"AK of another|AK certificate of another", (Untrusted, FormatError),
     r"did not make|signature|another key|sigAlg"),
    # chip
    (r"key_info says|signing key", Untrusted, r"the certificate is a"),
    (r"chip key masked|mask", Untrusted, r"masks"),
    (r"CPUID|unknown product|unknown family", (Untrusted, FormatError), r"CPUID|of a "),
    (r"wrong key type", (Untrusted, FormatError), r"wrong key type|not a VCEK|extension"),
    (r"chip id", Untrusted, r"chip id"),
    (r"product mismatch", Untrusted, r"of a "),
    (r"TCB( mismatch.*)?$", Untrusted, r"TCB"),
    (r"QE report data binding|binding", Untrusted, r"does not name this attestation"),
    (r"QE report signature", Untrusted, r"QE report"),
    (r"unknown QE vendor", Untrusted, r"QE vendor"),
    (r"root cert signature", Untrusted, r"none of the given roots|Intel chain"),
    (r"intermediate signature|PCK leaf signature|PCK certificate|parse|chain",
     (Untrusted, FormatError), rf"{_CHAIN}|{_FORM}"),
    # policy
    (r"CRL (is )?missing|no CRL|without (a )?CRL", Rejected, r"crl\."),
    (r"debug", Rejected, r"debug"),
    (r"VMPL", Rejected, r"vmpl"),
    (r"TCB below", Rejected, r"tcb"),
    (r"measurement", Rejected, r"measurement"),
    # last, since it is part of so many
    (r"TD quote signature", Untrusted, r"quote by the attestation key: signature|TDREPORT has"),
    (r"quote signature", Untrusted, r"quote by the attestation key: signature|does not name this"),
    (r"TPM signature|signature", (Untrusted, FormatError),
     rf"{_SIGNED}|chip id|TCB|signed by|of a |wrong key|magic|want a quote"),
)  # fmt: skip

_VAGUE = frozenset({"policy", "platform", "info", "id", "key", "digest", "version", "data"})
"""Words that are part of many claims' names."""
_PARTS = re.compile(r";|/| and also | also |\band\b|\(")


def fits(reason: str, error: Exception) -> bool:
    """Tell whether a refusal is for the reason that an entry names; no reason: any refusal is."""
    if not isinstance(error, REFUSALS):
        return False
    if not reason:
        return True
    if isinstance(error, Rejected) and all(_names(reason, line) for line in error.findings):
        return True
    parts = [part for part in _PARTS.split(reason) if part.strip()]
    lines = [line for part in (reason, *parts) if (line := _line(part)) is not None]
    if not lines:
        # in words that nobody has met yet: one of the longer ones must be in ours
        words = re.findall(r"[A-Za-z]{4,}", reason)
        return any(re.search(word, str(error), re.IGNORECASE) for word in words)
    return any(isinstance(error, kind) and re.search(said, str(error)) for kind, said in lines)


def _names(reason: str, finding: str) -> bool:
    """Tell whether a reason speaks of a finding's claim, in the claim's own words."""
    claim = finding.partition(":")[0].lower()
    text = reason.lower().replace("_", " ")
    if claim.rpartition(".")[2].replace("_", " ") in text:
        return True
    said = set(re.findall(r"[a-z0-9]+", text)) - _VAGUE
    return bool(said & set(re.split(r"[._]", claim)))


def _line(
    part: str,
) -> tuple[type[ConstellationError] | tuple[type[ConstellationError], ...], str] | None:
    for words, kind, said in _KNOWN:
        if re.search(words, part, re.IGNORECASE):
            return kind, said
    return None
