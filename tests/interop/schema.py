"""The test schema, compiled when the tests run: by protoc's own plug-in and by betterproto's."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grpc_tools import protoc

SERVICE = "/streamkit_interop.TestService/"


@dataclass(frozen=True)
class Schema:
    """The same messages from both worlds: `pb` and `grpc` for grpcio, `bp` for streamkit."""

    pb: Any
    grpc: Any
    bp: Any


def compile_schema(folder: Path) -> Schema:
    """Compile interop.proto into `folder` and import what comes out."""
    source = Path(__file__).parent
    command = [
        "protoc",
        f"--proto_path={source}",
        f"--python_out={folder}",
        f"--grpc_python_out={folder}",
        f"--plugin=protoc-gen-bp={Path(sys.executable).parent / 'protoc-gen-python_betterproto'}",
        f"--bp_out={folder}",
        str(source / "interop.proto"),
    ]
    assert protoc.main(command) == 0
    sys.path.insert(0, str(folder))
    try:
        return Schema(
            pb=importlib.import_module("interop_pb2"),
            grpc=importlib.import_module("interop_pb2_grpc"),
            bp=importlib.import_module("streamkit_interop"),
        )
    finally:
        sys.path.remove(str(folder))
