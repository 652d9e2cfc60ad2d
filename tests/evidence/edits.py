"""What does an edit of mutations.json do to the case of its base?

Each operation is applied to the files that the entry names, or to time and expectations. What an
entry says in another form raises `NotKnownError`: it is then counted as not covered.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.evidence import changes
from tests.evidence.folder import Case, File, NotKnownError, at

if TYPE_CHECKING:
    from collections.abc import Callable

    Edit = dict[str, Any]

__all__ = ["edited"]


def edited(case: Case, edit: Edit) -> Case:
    """Apply all operations of an edit."""
    for op in edit["ops"]:
        name = op["op"]
        if name in _ON_CASE:
            case = _ON_CASE[name](case, edit, op)
        elif name in changes.ON_BYTES:
            target = _target(case, edit, op)
            data = changes.ON_BYTES[name](target.data, op)
            case = case.with_files(replace(target, data=data))
        else:
            raise NotKnownError(f"operation {name!r}")
    return case


def _target(case: Case, edit: Edit, op: Edit) -> File:
    """Find the file that an operation is on."""
    found = _matching(case, edit.get("file") or edit.get("at") or "-")
    if not found:
        raise NotKnownError(f"file {edit.get('file')!r} of {case.item['id']}")
    # a pattern may stand for several files: the entry's last word tells which, or its offset
    words = re.findall(r"[a-z]+", edit["id"].rpartition("/")[2])
    offset = op.get("offset", op.get("length", 0))

    def score(file: File) -> tuple[bool, bool, int]:
        parts = re.findall(r"[a-z]+", f"{file.role} {file.name}".lower())
        json_op = op["op"] == "json"
        named = sum(part.startswith(word) for word in words for part in parts)
        return (not json_op or file.role.startswith("pcr"), offset < len(file.data), named)

    return max(found, key=score)


def _matching(case: Case, pattern: str) -> list[File]:
    if len(case.files) == 1:
        return list(case.files)
    found = [f for f in case.files if pattern in (f.path, f.name)]
    if not found and "*" not in pattern and "+" not in pattern:
        # entries of another source may call the same file by what it is
        stem = pattern.rpartition("/")[2].partition(".")[0].lower()
        found = [
            f for f in case.files if stem and f.role.startswith((stem, _ROLES.get(stem, stem)))
        ]
    if not found:
        globs = [p if "." in p else f"{p}.*" for p in pattern.split("+")]
        found = [f for f in case.files if any(fnmatch.fnmatch(f.name, g) for g in globs)]
        # registers go with the files of a quote
        if found and "*" in pattern:
            found += [f for f in case.files if f.role.startswith("pcr") and f not in found]
    return found


_ROLES = {"tpm_quote": "tpms_attest", "quote": "tpms_attest", "document": "cose"}
"""Usual file names whose role begins with another word."""


def _replace(case: Case, edit: Edit, op: Edit) -> Case:
    """Take another entry's files, each for the file of its name, or for the one that is named."""
    first, *more = str(op.get("with_") or op["with"]).split(",")
    stem = first.rpartition(".")[0]
    names = [first]
    for other in more:  # "x/quote.msg,sig,pcrs": the same stem, or a file of that name
        folder = first.rpartition("/")[0]
        names.append(f"{folder}/{other}.json" if other == "pcrs" else f"{stem}.{other}")
    for name in names:
        data = _other(case, name)
        own = [f for f in case.files if f.name == name.rpartition("/")[2]]
        target = own[0] if own else _target(case, edit, op)
        case = case.with_files(replace(target, data=data))
        swapped = (*case.expect.get("swapped", ()), data)
        case = replace(case, expect={**case.expect, "swapped": swapped})
    return case


def _other(case: Case, name: str) -> bytes:
    try:
        return case.folder.read(case.platform, name)
    except FileNotFoundError:
        return case.folder.read(*_stand_in(case, name))


def _stand_in(case: Case, name: str) -> tuple[str, str]:
    """Find the file that is most like one that was not published: of another item, same form."""
    words = set(re.findall(r"[a-z0-9]+", f"{name} {case.item['kind']}".lower()))
    first = re.split(r"[-_.]", name.rpartition("/")[2] if "/" not in name else name)[0]
    best: tuple[int, str, str] = (-1, "", "")
    ours = {f.path for f in case.files} | {f.data for f in case.files}
    for platform, item in case.folder.items():
        if item.get("kind") == "root-chain":
            continue
        for file in item.get("files") or ():
            path = file["file"]
            form = path.rpartition(".")[2] == name.rpartition(".")[2]
            near = platform == case.platform or name.startswith(f"{platform}/")
            if not form or not near or case.folder.read(platform, path) in ours:
                continue
            about = re.findall(r"[a-z0-9]+", f"{platform} {item.get('kind', '')} {path}".lower())
            likeness = len(words & set(about)) + 3 * (first in about) + 5 * (platform in name)
            likeness += 2 * (item.get("product") != case.item.get("product"))
            best = max(best, (likeness, platform, path))
    if best[0] < 0:
        raise NotKnownError(f"{name} is not there, nor anything like it")
    return best[1], best[2]


def _expect(case: Case, _edit: Edit, op: Edit) -> Case:
    given = {k: v for k, v in op.items() if k != "op"}
    if unknown := given.keys() - {"nonce", "report_data"}:
        raise NotKnownError(f"expectation {min(unknown)!r}")
    if "nonce" in given:
        given["nonce"] = _nonce(given["nonce"])
    if "report_data" in given:
        given["report_data"] = _nonce(given["report_data"]).ljust(64, b"\0")
    return replace(case, expect={**case.expect, **given})


def _nonce(text: str) -> bytes:
    # a nonce of text is written as text, one of bytes in hexadecimal
    is_hex = re.fullmatch(r"(?:[0-9a-f]{2}){8,}", text)
    return bytes.fromhex(text) if is_hex else text.encode()


def _verify_at(case: Case, _edit: Edit, op: Edit) -> Case:
    if "unix" in op:
        return replace(case, now=datetime.fromtimestamp(op["unix"], UTC))
    return replace(case, now=at(op["time"]))


def _policy(case: Case, _edit: Edit, op: Edit) -> Case:
    return replace(case, expect={**case.expect, "policy": op["policy"]})


def _collateral(case: Case, edit: Edit, op: Edit) -> Case:
    """Change collateral as the entry says in a word; `with_quote` names the quote to verify."""
    changed = changes.of_collateral(case, op["change"])
    if changed is None:
        raise NotKnownError(f"change {op['change']!r} of collateral")
    quote = case.folder.named(case.platform, edit["with_quote"], also="quote-")
    data = case.folder.case(case.platform, quote).get("quote")
    return replace(case, expect={**case.expect, "collateral": changed, "quote": data})


def _events(case: Case, edit: Edit, op: Edit) -> Case:
    target = _target(case, edit, op)
    padded = case.item["kind"].startswith("CCEL")
    data = changes.of_events(target.data, op, padded=padded)
    return case.with_files(replace(target, data=data))


def _text(case: Case, edit: Edit, op: Edit) -> Case:
    """Follow a change that is described in words."""
    (target, *_) = _matching(case, edit.get("file") or "list") or case.files
    changed = changes.of_lines(target.data, op["change"])
    if changed is None:
        raise NotKnownError(f"change {op['change']!r}")
    return case.with_files(replace(target, data=changed))


def _scenario(case: Case, _edit: Edit, op: Edit) -> Case:
    """Keep what is to be built, in words."""
    words = " ".join(str(value) for name, value in sorted(op.items()) if name != "op")
    return replace(case, expect={**case.expect, "scenario": words})


_ON_CASE: dict[str, Callable[[Case, Edit, Edit], Case]] = {
    "replace": _replace,
    "expect": _expect,
    "verify_at": _verify_at,
    "policy": _policy,
    "collateral": _collateral,
    "remove_event": _events,
    "swap_events": _events,
    "insert_event": _events,
    "text": _text,
    "scenario": _scenario,
}
