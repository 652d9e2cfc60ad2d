"""What Intel says of a platform, as values: TCB info v3, QE identity v2, revocation lists.

TCB info and QE identity are JSON objects whose signatures cover their exact bytes: they are kept as
bytes, and only read. Source: "Intel SGX and Intel TDX Provisioning Certification Service API",
version 4, "Get TDX TCB Info", "Get Quoting Enclave Identity", "Get Revocation List". Reading
establishes nothing: see `chain`.
"""

from __future__ import annotations

import binascii
import functools
import json
import re
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Any

from constellation.attestation.tdx.status import TcbStatus
from constellation.base.errors import FormatError

__all__ = [
    "MAX_COLLATERAL_BYTES",
    "Collateral",
    "IdentityLevel",
    "ModuleIdentity",
    "QeIdentity",
    "TcbInfo",
    "TcbLevel",
    "parse_qe_identity",
    "parse_tcb_info",
    "signed_json",
]

MAX_COLLATERAL_BYTES = 256 * 1024
"""Longer documents are refused before they are parsed; real ones have up to 20 KiB."""

_COMPONENTS = 16
_MAX_LEVELS = 256
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_SIGNATURE = re.compile(r'\s*,\s*"signature"\s*:\s*"([0-9a-fA-F]{128})"\s*\}\s*')


@dataclass(frozen=True, slots=True, kw_only=True)
class Collateral:
    """Everything of Intel's that a quote is judged by. An empty field is missing.

    `tcb_info` and `qe_identity` are the inner JSON objects, byte for byte; signatures are r ‖ s,
    64 bytes; chains are PEM, leaf first; revocation lists are DER. `pck_crl_issuer_chain` is kept
    for other verifiers: here the quote's own chain names the issuer.
    """

    tcb_info: bytes
    tcb_info_signature: bytes
    tcb_info_issuer_chain: bytes
    qe_identity: bytes
    qe_identity_signature: bytes
    qe_identity_issuer_chain: bytes
    pck_crl: bytes
    pck_crl_issuer_chain: bytes
    root_ca_crl: bytes

    @classmethod
    def parse(cls, data: bytes) -> Collateral:
        """Read the JSON form that Intel's quote provider library and caching services give out.

        Fields are named as here; signatures and revocation lists are hexadecimal.

        Raises:
            FormatError: not JSON, a field missing, or not of its kind.
        """
        if len(data) > MAX_COLLATERAL_BYTES:
            raise FormatError(f"collateral: {len(data)} bytes, want {MAX_COLLATERAL_BYTES} at most")
        document = _json(data, "collateral")
        values: dict[str, bytes] = {}
        for field in fields(cls):
            text = _get(document, field.name, str, "collateral")
            try:
                as_hex = field.name.endswith(("_crl", "_signature"))
                values[field.name] = binascii.unhexlify(text) if as_hex else text.encode()
            except ValueError:
                raise FormatError(f"collateral: {field.name} is not hexadecimal or text") from None
        return cls(**values)

    def dump(self) -> bytes:
        """Write the JSON form; the inverse of `parse`."""
        document: dict[str, str] = {}
        for field in fields(self):
            value: bytes = getattr(self, field.name)
            as_hex = field.name.endswith(("_crl", "_signature"))
            document[field.name] = value.hex() if as_hex else value.decode()
        return json.dumps(document, sort_keys=True, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentityLevel:
    """What Intel says of an ISV SVN and the versions above it, down to the next level's."""

    isv_svn: int
    status: TcbStatus
    date: datetime
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ModuleIdentity:
    """A TDX module that Intel signed: its version is in `id`, "TDX_01"; "" is the oldest form.

    `attributes` counts under `attributes_mask` only; both 8 bytes, `mr_signer` 48.
    """

    id: str
    mr_signer: bytes
    attributes: bytes
    attributes_mask: bytes
    levels: tuple[IdentityLevel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbLevel:
    """The least SVNs of one level: 16 SGX components, 16 TDX ones (none for SGX), PCESVN."""

    sgx_components: tuple[int, ...]
    tdx_components: tuple[int, ...]
    pce_svn: int
    status: TcbStatus
    date: datetime
    advisories: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TcbInfo:
    """TCB info v3 of one FMSPC (6 bytes) and PCE-ID (2 bytes); levels from the newest down."""

    id: str
    version: int
    issue_date: datetime
    next_update: datetime
    fmspc: bytes
    pce_id: bytes
    tcb_type: int
    tcb_evaluation_data_number: int
    modules: tuple[ModuleIdentity, ...]
    levels: tuple[TcbLevel, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class QeIdentity:
    """QE identity v2: which quoting enclave is Intel's; masked fields as in `ModuleIdentity`.

    `misc_select` 4 bytes, `attributes` 16, `mr_signer` 32.
    """

    id: str
    version: int
    issue_date: datetime
    next_update: datetime
    tcb_evaluation_data_number: int
    misc_select: bytes
    misc_select_mask: bytes
    attributes: bytes
    attributes_mask: bytes
    mr_signer: bytes
    isv_prod_id: int
    levels: tuple[IdentityLevel, ...]


def signed_json(response: bytes, *, name: str) -> tuple[bytes, bytes]:
    """Split an answer of the service into the inner object's exact bytes and its signature.

    `name` is `tcbInfo` or `enclaveIdentity`.

    Raises:
        FormatError: not `{"name":{…},"signature":"128 hexadecimal digits"}`, in this order.
    """
    wrong = FormatError(f"{name}: not an object of that name and its signature")
    if len(response) > MAX_COLLATERAL_BYTES:
        raise wrong
    try:
        text = response.decode("utf-8", "strict")
        start = re.match(rf'\s*\{{\s*"{name}"\s*:\s*(?=\{{)', text)
        if start is None:
            raise wrong
        _, end = json.JSONDecoder().raw_decode(text, start.end())
    except (ValueError, RecursionError):
        raise wrong from None
    match = _SIGNATURE.fullmatch(text, end)
    if match is None:
        raise wrong
    return text[start.end() : end].encode(), bytes.fromhex(match[1])


@functools.lru_cache(maxsize=64)
def parse_tcb_info(data: bytes) -> TcbInfo:
    """Read the inner object of a TCB info.

    Raises:
        FormatError: not JSON, another version, a field missing or not of its kind.
    """
    what = "TCB info"
    document = _json(data, what)
    kind, version = _get(document, "id", str, what), _get(document, "version", int, what)
    if version != 3 or kind not in ("SGX", "TDX"):  # noqa: PLR2004 - the version we read
        raise FormatError(f"{what}: id {kind[:16]!r}, version {version}, want SGX or TDX, 3")
    return TcbInfo(
        id=kind,
        version=version,
        issue_date=_time(document, "issueDate", what),
        next_update=_time(document, "nextUpdate", what),
        fmspc=_hex(document, "fmspc", 6, what),
        pce_id=_hex(document, "pceId", 2, what),
        tcb_type=_get(document, "tcbType", int, what),
        tcb_evaluation_data_number=_get(document, "tcbEvaluationDataNumber", int, what),
        modules=_modules(document) if kind == "TDX" else (),
        levels=tuple(_level(v, tdx=kind == "TDX") for v in _list(document, "tcbLevels", what)),
    )


@functools.lru_cache(maxsize=64)
def parse_qe_identity(data: bytes) -> QeIdentity:
    """Read the inner object of a QE identity.

    Raises:
        FormatError: not JSON, another version, a field missing or not of its kind.
    """
    what = "QE identity"
    document = _json(data, what)
    version = _get(document, "version", int, what)
    if version != 2:  # noqa: PLR2004 - the version we read
        raise FormatError(f"{what}: version {version}, want 2")
    return QeIdentity(
        id=_get(document, "id", str, what),
        version=version,
        issue_date=_time(document, "issueDate", what),
        next_update=_time(document, "nextUpdate", what),
        tcb_evaluation_data_number=_get(document, "tcbEvaluationDataNumber", int, what),
        misc_select=_hex(document, "miscselect", 4, what),
        misc_select_mask=_hex(document, "miscselectMask", 4, what),
        attributes=_hex(document, "attributes", 16, what),
        attributes_mask=_hex(document, "attributesMask", 16, what),
        mr_signer=_hex(document, "mrsigner", 32, what),
        isv_prod_id=_get(document, "isvprodid", int, what),
        levels=_identity_levels(document, what),
    )


def _modules(document: dict[str, Any]) -> tuple[ModuleIdentity, ...]:
    oldest = _module(_get(document, "tdxModule", dict, "TCB info"), id_="", levels=())
    what = "TCB info: tdxModuleIdentities"
    found = [oldest]
    if "tdxModuleIdentities" in document:
        for value in _list(document, "tdxModuleIdentities", "TCB info"):
            _expect(value, dict, what)
            name = _get(value, "id", str, what)
            found.append(_module(value, id_=name, levels=_identity_levels(value, what)))
    if len({m.id for m in found}) != len(found):
        raise FormatError(f"{what}: one identity twice")
    return tuple(found)


def _module(
    value: dict[str, Any], *, id_: str, levels: tuple[IdentityLevel, ...]
) -> ModuleIdentity:
    what = "TCB info: TDX module"
    return ModuleIdentity(
        id=id_,
        mr_signer=_hex(value, "mrsigner", 48, what),
        attributes=_hex(value, "attributes", 8, what),
        attributes_mask=_hex(value, "attributesMask", 8, what),
        levels=levels,
    )


def _level(value: Any, *, tdx: bool) -> TcbLevel:
    what = "TCB info: tcbLevels"
    _expect(value, dict, what)
    tcb = _get(value, "tcb", dict, what)
    return TcbLevel(
        sgx_components=_components(tcb, "sgxtcbcomponents"),
        tdx_components=_components(tcb, "tdxtcbcomponents") if tdx else (),
        pce_svn=_get(tcb, "pcesvn", int, what),
        status=_status(value, what),
        date=_time(value, "tcbDate", what),
        advisories=_advisories(value, what),
    )


def _components(tcb: dict[str, Any], name: str) -> tuple[int, ...]:
    what = f"TCB info: {name}"
    found = _list(tcb, name, what)
    if len(found) != _COMPONENTS:
        raise FormatError(f"{what}: {len(found)} components, want {_COMPONENTS}")
    for component in found:
        _expect(component, dict, what)
    return tuple(_get(component, "svn", int, what) for component in found)


def _identity_levels(value: dict[str, Any], what: str) -> tuple[IdentityLevel, ...]:
    levels = []
    for level in _list(value, "tcbLevels", what):
        _expect(level, dict, what)
        tcb = _get(level, "tcb", dict, what)
        levels.append(
            IdentityLevel(
                isv_svn=_get(tcb, "isvsvn", int, what),
                status=_status(level, what),
                date=_time(level, "tcbDate", what),
                advisories=_advisories(level, what),
            )
        )
    return tuple(levels)


def _status(value: dict[str, Any], what: str) -> TcbStatus:
    text = _get(value, "tcbStatus", str, what)
    try:
        return TcbStatus(text)
    except ValueError:
        raise FormatError(
            f"{what}: status {text[:40]!r} is none of {', '.join(TcbStatus)}"
        ) from None


def _advisories(value: dict[str, Any], what: str) -> tuple[str, ...]:
    if "advisoryIDs" not in value:
        return ()
    found = _list(value, "advisoryIDs", what)
    for item in found:
        _expect(item, str, what)
    return tuple(found)


def _json(data: bytes, what: str) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise FormatError(f"{what}: a key twice in one object")
        return found

    if len(data) > MAX_COLLATERAL_BYTES:
        raise FormatError(f"{what}: {len(data)} bytes, at most {MAX_COLLATERAL_BYTES} are read")
    try:
        value = json.loads(data.decode("utf-8", "strict"), object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what}: not JSON: {error}") from None
    _expect(value, dict, what)
    found: dict[str, Any] = value
    return found


def _get(value: dict[str, Any], name: str, kind: type, what: str) -> Any:
    if name not in value:
        raise FormatError(f"{what}: {name} is missing")
    _expect(value[name], kind, f"{what}: {name}")
    return value[name]


def _list(value: dict[str, Any], name: str, what: str) -> list[Any]:
    found: list[Any] = _get(value, name, list, what)
    if len(found) > _MAX_LEVELS:
        raise FormatError(f"{what}: {name} has {len(found)} entries, at most {_MAX_LEVELS}")
    return found


def _expect(value: Any, kind: type, what: str) -> None:
    # bool is an int to Python, not to us
    wrong = not isinstance(value, kind) or isinstance(value, bool)
    if wrong or (isinstance(value, int) and value < 0):
        raise FormatError(f"{what}: {type(value).__name__}, want {kind.__name__}, not below zero")


def _hex(value: dict[str, Any], name: str, size: int, what: str) -> bytes:
    text = _get(value, name, str, what)
    try:
        found = binascii.unhexlify(text)
    except ValueError:
        raise FormatError(f"{what}: {name} is not hexadecimal") from None
    if len(found) != size:
        raise FormatError(f"{what}: {name} has {len(found)} bytes, want {size}")
    return found


def _time(value: dict[str, Any], name: str, what: str) -> datetime:
    text = _get(value, name, str, what)
    if not _TIME.fullmatch(text):
        raise FormatError(f"{what}: {name} is {text[:40]!r}, want a time like 2025-01-31T23:59:59Z")
    try:
        return datetime.fromisoformat(text)
    except ValueError as error:
        raise FormatError(f"{what}: {name}: {error}") from None
