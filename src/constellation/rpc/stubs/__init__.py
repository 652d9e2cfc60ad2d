"""Generated from rpc/protos by `make stubs`."""
