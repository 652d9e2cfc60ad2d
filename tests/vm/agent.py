"""Runs inside the machine: does what the host orders over a virtio port, one program at a time.

An order is one line of JSON: {"number": n, "argv": [...], "stdin": base64, "timeout_s": n}. Answers
are lines as well, each with the order's number: {"line": text} for each line that the program
prints, at last {"code": n}. A program ends by its deadline, and an order with it: what it left
behind with its output open is not waited for. Nothing but the standard library; the port is the
machine's only way out besides its console.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable  # noqa: TC003 - the machine has this file alone

PORT = "/dev/virtio-ports/constellation.test"
LINE_BYTES = 256 * 1024
PAUSE_S = 0.2
AFTER_S = 2.0  # what a program left in its pipe is read for so long
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
}


def say(port: int, word: dict[str, object]) -> None:
    """Write one answer."""
    data = json.dumps(word).encode() + b"\n"
    while data:
        data = data[os.write(port, data) :]


def obey(order: dict[str, object], port: int) -> None:
    """Run one program to its end or deadline."""

    def answer(word: dict[str, object]) -> None:
        say(port, {**word, "number": order["number"]})

    argv = [str(word) for word in order["argv"]]  # type: ignore[attr-defined]  # a list
    timeout_s = float(str(order["timeout_s"]))
    try:
        process = subprocess.Popen(
            argv, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        answer({"line": str(error)})
        answer({"code": 127})
        return
    given = base64.b64decode(str(order["stdin"]))
    # a thread of its own: the program may print before it has read all
    threading.Thread(target=feed, args=(process, given), daemon=True).start()
    if not listen(process, time.monotonic() + timeout_s, answer):
        answer({"line": f"(ended after {timeout_s:.0f} s, its deadline)"})
    assert process.stdout is not None
    process.stdout.close()
    answer({"code": process.wait()})


def feed(process: subprocess.Popen[bytes], data: bytes) -> None:
    """Give a program its input."""
    assert process.stdin is not None
    with contextlib.suppress(OSError):  # it did not want to know
        process.stdin.write(data)
    with contextlib.suppress(OSError):
        process.stdin.close()


def listen(
    process: subprocess.Popen[bytes],
    deadline: float,
    answer: Callable[[dict[str, object]], None],
) -> bool:
    """Pass on what a program prints until it has ended; False: it had to be killed."""
    assert process.stdout is not None
    pipe, buffer, in_time, silent = process.stdout.fileno(), b"", True, False
    ended: float | None = None
    while True:
        now = time.monotonic()
        if ended is None and process.poll() is not None:
            ended = now
        if ended is None and now >= deadline:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            in_time, ended = False, now
        if ended is not None and (silent or now >= ended + AFTER_S):
            break
        if silent:
            time.sleep(PAUSE_S)
        elif select.select([pipe], [], [], PAUSE_S)[0]:
            data = os.read(pipe, 65536)
            silent = not data
            buffer += data
            *lines, buffer = buffer.split(b"\n")
            lines += [buffer] if len(buffer) > LINE_BYTES else []
            buffer = b"" if len(buffer) > LINE_BYTES else buffer
            for line in lines:
                answer({"line": line.decode(errors="replace")})
    if buffer:
        answer({"line": buffer.decode(errors="replace")})
    return in_time


def main() -> None:
    """Serve until the machine goes. The port can be opened once only."""
    os.chdir("/root")
    port = os.open(PORT, os.O_RDWR)
    say(port, {"line": "ready", "number": 0})
    buffer = b""
    while True:
        data = os.read(port, 65536)
        if not data:  # nobody is connected out there
            time.sleep(PAUSE_S)
        buffer += data
        while b"\n" in buffer:
            line, _, buffer = buffer.partition(b"\n")
            obey(json.loads(line), port)


if __name__ == "__main__":
    main()
