"""Runs inside the machine: does what the host orders over a virtio port, one program at a time.

An order is one line of JSON: {"argv": [...], "stdin": base64, "timeout_s": n}. Answers are lines as
well: {"line": text} for each line that the program prints, at last {"code": n}. Nothing but the
standard library; the port is the machine's only way out besides its console.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import threading
from typing import BinaryIO

PORT = "/dev/virtio-ports/constellation.test"
LINE_BYTES = 16 * 1024
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def say(port: BinaryIO, word: dict[str, object]) -> None:
    """Write one answer."""
    port.write(json.dumps(word).encode() + b"\n")
    port.flush()


def obey(port: BinaryIO, order: dict[str, object]) -> None:
    """Run one program to its end or deadline."""
    argv = [str(word) for word in order["argv"]]  # type: ignore[attr-defined]  # a list
    try:
        process = subprocess.Popen(
            argv, env=ENVIRONMENT, cwd="/root", stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        say(port, {"line": str(error)})
        say(port, {"code": 127})
        return

    def end() -> None:
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(float(str(order["timeout_s"])), end)
    timer.start()
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(base64.b64decode(str(order["stdin"])))
        process.stdin.close()
    except BrokenPipeError:
        pass  # it did not want to know
    while line := process.stdout.readline(LINE_BYTES):
        say(port, {"line": line.decode(errors="replace").rstrip("\n")})
    code = process.wait()
    timer.cancel()
    say(port, {"code": code})


def main() -> None:
    """Serve until the machine goes."""
    with open(PORT, "rb", buffering=0) as orders, open(PORT, "wb", buffering=0) as answers:  # noqa: PTH123 - a port is no file
        say(answers, {"line": "ready"})
        buffer = b""
        while True:
            buffer += os.read(orders.fileno(), 65536)
            while b"\n" in buffer:
                line, _, buffer = buffer.partition(b"\n")
                obey(answers, json.loads(line))


if __name__ == "__main__":
    main()
