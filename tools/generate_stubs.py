"""Generate src/constellation/rpc/stubs from src/constellation/rpc/protos (make stubs)."""

import re
import sys
from pathlib import Path

import grpc_tools
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "src/constellation/rpc/protos"
STUBS = ROOT / "src/constellation/rpc/stubs"


def main() -> int:
    """Run protoc with grpclib's plugin and make the imports absolute."""
    files = sorted(PROTOS.glob("*.proto"))
    plugin = Path(sys.executable).parent / "protoc-gen-grpclib_python"
    result = protoc.main(
        [
            "protoc",
            f"--plugin=protoc-gen-grpclib_python={plugin}",
            f"-I{PROTOS}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_out={STUBS}",
            f"--pyi_out={STUBS}",
            f"--grpclib_python_out={STUBS}",
            *map(str, files),
        ]
    )
    names = "|".join(f.stem for f in files)
    for stub in STUBS.glob("*.py"):
        text = stub.read_text()
        text = re.sub(
            rf"^import ({names})_pb2( as|$)",
            r"import constellation.rpc.stubs.\1_pb2\2",
            text,
            flags=re.MULTILINE,
        )
        text = re.sub(rf"(?<![\w.])({names})_pb2\.", r"constellation.rpc.stubs.\1_pb2.", text)
        stub.write_text(text)
    (STUBS / "__init__.py").write_text('"""Generated from rpc/protos by `make stubs`."""\n')
    return int(result)


if __name__ == "__main__":
    sys.exit(main())
