"""The first 32 KiB of a header that cryptsetup 2.7.5 made with the parameters of `disk.luks`.

Under Debian's kernel 6.12.118 with `--integrity hmac-sha256`, on a disk of 1 GiB, for a key of 64
known bytes; both copies, without the key slot. zlib, base64. The disk held no secret.
"""

from __future__ import annotations

import base64
import zlib

__all__ = ["UUID", "made_header"]

UUID = bytes(range(16))
_PACKED = (
    "eNrt20tsG0UYB3CHSpWhUrnAAaRKZSUKSLYyu95dbyKlRGnjOnEqkrjb0JY0Gu/O2hvbu9bO1o6ThkMlKIECB6Ac"
    "uPKogGtaHqEIcejjFKoeqrRVEYjSE0ItCHFpO+uE1qGq4MJL/H8Hyzuz38z3zawseaUZMnP5T47H7om19MZWrLF8"
    "j4esUqGh63uxP8ZLVNH0u/ffG29+ll175aU9R+O9nxL11PzmsVefWXzgyJdLZ8/M9L+444rV8ew3mxbkI3HudvQf"
    "vJz/denQjfja53d2eO8Pn8xdJoTIRCGpJFGJliQ6SSeJQbqShJICsYhNGHFi/0ObDx+9r/Pn02e/euPSI/n6icbJ"
    "R19bGH536eD6j66OLF58azwGAAAAAAAAIMxIZdbkFT/kUveMRKKPsFljUrdU2VfmipSI+ie4Oy2auvSERJ3f3SKL"
    "W3gYuDUmRlDF3/SEVKK8JHqXXwlIsyIoYLQtLKANEeQ7DmehuEwpad2IRmlNIqUMjSiquGaeFTRr0fsH0UoZT06F"
    "PFmrUNfT1VV56aqYo2y3Z1YriOso+9W5JCQ3ZEHrnYbIVm5ly2klymLac7bLjb6sPeaNFKp9ttZpKCPp3AAL2KAe"
    "DGQyjp1xXFbKZsweaXZWzBj6ZRYNMyO+c1asMu/ORWxV0F6sTFRDS+u3y7WbHq26VpRafSJsMFoWjeRu5QfUs/1q"
    "FM2s0A9WFkAl0da4XsiKgRs22+YvVan1+HLxT4ioSX9f4NHKxKqxPd9jbX1twyx3tYq13SLjd9Z3a51vP0V7xA3j"
    "7Suy0vCnd6LOslvNVGO7bcrZnGtWBgNlZz9JK7uL2jZt1GpOjTqjT+3q2y03jR7pt8xE3ODAlqkd0/qQPajlB1Is"
    "UL1tZKoxVsx3muFwXekqsaFysYsWDLcY7WBCsnzPcYtRNZPc91bWUpIVxTDaKrrVTmTNIIaIxK8GAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAA/BPyOXPo7zj//8s8e/r00judG0avXZ2fm97/3ZZze3tTW48deO/SgyNz6fsTebLulZ6Hd53Y"
    "eOHb2vj35mPdH+vxw9eey0yapz44/8WPf+35/97/7P6ZFxc/PPD2mz/RQw9dl1+2Fz7/ob7/hTm3/Dov9MlPrv8a"
    "TzgAAAAAAABEcP4f5/9x/h/n/wEAAAAAAAAAAAAAAAAAAAAAAAAAAODf7yabcI7H"
)


def made_header() -> bytes:
    """Give both copies: 32 KiB."""
    return zlib.decompress(base64.b64decode(_PACKED))
