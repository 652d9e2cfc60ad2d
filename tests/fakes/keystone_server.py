"""A real Keystone on 127.0.0.1 in an environment of its own: `PYTHON keystone_server.py CONF`.

Prints its port, then serves until its standard input ends. Runs with Keystone's packages only:
nothing of this project is imported here.
"""

from __future__ import annotations

import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: Any) -> None:
        pass


def main() -> None:
    warnings.simplefilter("ignore")
    conf = sys.argv[1]
    os.environ["OS_KEYSTONE_CONFIG_FILES"] = conf
    sys.argv = ["keystone", "--config-file", conf]
    # keystone's own packages are there in its environment only
    from keystone.server.wsgi import (  # noqa: PLC0415
        initialize_public_application,
    )

    application = initialize_public_application()
    server = make_server("127.0.0.1", 0, application, handler_class=_Quiet)
    Path(conf).with_name("port").write_text(str(server.server_port))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    sys.stdin.read()
    server.shutdown()


if __name__ == "__main__":
    main()
