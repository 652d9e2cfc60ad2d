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
import time

PORT = "/dev/virtio-ports/constellation.test"
LINE_BYTES = 256 * 1024
PAUSE_S = 0.2
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


def obey(port: int, order: dict[str, object]) -> None:
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
    """Serve until the machine goes. The port can be opened once only."""
    port = os.open(PORT, os.O_RDWR)
    say(port, {"line": "ready"})
    buffer = b""
    while True:
        data = os.read(port, 65536)
        if not data:  # nobody is connected out there
            time.sleep(PAUSE_S)
        buffer += data
        while b"\n" in buffer:
            line, _, buffer = buffer.partition(b"\n")
            obey(port, json.loads(line))


if __name__ == "__main__":
    main()
