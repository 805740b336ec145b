"""The same message classes twice, betterproto's and google.protobuf's, and how to compare them.

Both sides are turned into plain data: a dict by number of the fields that are set, without what the
wire does not tell apart (an implicit field at its default). Times go through the stated rules.
"""

from __future__ import annotations

import importlib
import os
import struct
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import betterproto
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message as GoogleMessage

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
UNKNOWN = 0


@dataclass(frozen=True)
class Peers:
    """The two modules generated from one schema."""

    ours: Any
    google: Any


def compile_proto(target: Path, name: str, include: Path, package: str) -> Peers:
    """Run protoc on `name`.proto for both; betterproto's package is called `{package}_ours`."""
    ours = compile_ours(target, name, include, package, "typing.310")
    protoc(include, target, f"--python_out={target}", f"{name}.proto")
    return Peers(ours, imported(target, f"{name}_pb2"))


def compile_ours(target: Path, name: str, include: Path, package: str, option: str) -> Any:
    """Run protoc with betterproto's plug-in; return the package, as `{package}_ours`."""
    plain = target / f"{name}_betterproto"
    plain.mkdir()
    ours = (f"--python_betterproto_out={plain}", f"--python_betterproto_opt={option}")
    protoc(include, target, *ours, f"{name}.proto")
    (plain / package).rename(target / f"{package}_ours")
    return imported(target, f"{package}_ours")


def compile_described(target: Path, name: str, include: Path, package: str) -> Peers:
    """The same with the schema's descriptors beside the package, which keeps its name."""
    ours = (f"--python_betterproto_out={target}", "--python_betterproto_opt=typing.310")
    descriptors = ("--include_imports", f"--descriptor_set_out={target / 'descriptors.binpb'}")
    # The plug-in asks whether the package is there already.
    protoc(include, target, *ours, *descriptors, f"{name}.proto")
    protoc(include, target, f"--python_out={target}", f"{name}.proto")
    return Peers(imported(target, package), imported(target, f"{name}_pb2"))


def protoc(include: Path, target: Path, *arguments: str) -> None:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ.get("PATH", "")])
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", f"-I{include}"),
            *(f"-I{files('grpc_tools') / '_proto'}", *arguments),
        ],
        check=True,
        capture_output=True,
        cwd=target,
        env={**os.environ, "PATH": path},
    )


def imported(folder: Path, name: str) -> Any:
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


def micros(nanos: int) -> int:
    return nanos // 1000 if nanos >= 0 else -(-nanos // 1000)


def time_of(seconds: int, nanos: int) -> datetime:
    try:
        return EPOCH + timedelta(seconds=seconds, microseconds=micros(nanos))
    except OverflowError:
        edge = datetime.min if seconds < 0 else datetime.max
        return edge.replace(tzinfo=UTC)


def span_of(seconds: int, nanos: int) -> timedelta:
    try:
        return timedelta(seconds=seconds, microseconds=micros(nanos))
    except OverflowError:
        return timedelta.min if seconds < 0 else timedelta.max


def bits(value: float) -> Any:
    """A float by its bits, all NaNs alike."""
    return "nan" if value != value else struct.pack("<d", value)


# --- google.protobuf -> plain data -------------------------------------------------------------


def plain_google(message: GoogleMessage) -> Any:
    found: dict[int, Any] = {}
    for field, value in message.ListFields():
        found[field.number] = _google_field(field, value)
    unknown = unknown_of(message)
    if unknown:
        found[UNKNOWN] = unknown
    return found


def unknown_of(message: GoogleMessage) -> bytes:
    left = type(message)()
    left.CopyFrom(message)
    for field, _ in message.ListFields():
        left.ClearField(field.name)
    data: bytes = left.SerializeToString()
    return data


def difference(mine: Any, theirs: Any, path: str = "") -> str:
    """Where two plain values part, for a message that a person can read."""
    if mine == theirs:
        return ""
    if path.endswith(f".{UNKNOWN}") and isinstance(mine, bytes) and sorted(mine) == sorted(theirs):
        # An entry of a map that holds unknown fields is written anew as a whole, and the maps in
        # it have no order of their own.
        return ""
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        mine, theirs = dict(enumerate(mine)), dict(enumerate(theirs))
    if isinstance(mine, dict) and isinstance(theirs, dict) and mine.keys() == theirs.keys():
        found = (difference(mine[key], theirs[key], f"{path}.{key}") for key in mine)
        return next(filter(None, found), "")
    return f"{path or 'all'}: ours {mine!r}, theirs {theirs!r}"


def _google_field(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        item = field.message_type.fields_by_name["value"]
        return {key: _google_value(item, value[key]) for key in value}
    if field.is_repeated:
        return [_google_value(field, one) for one in value]
    return _google_value(field, value)


def _google_value(field: FieldDescriptor, value: Any) -> Any:
    if field.message_type is not None:
        name = field.message_type.full_name
        if name == "google.protobuf.Timestamp":
            return time_of(value.seconds, value.nanos)
        if name == "google.protobuf.Duration":
            return span_of(value.seconds, value.nanos)
        if (
            name.startswith("google.protobuf.")
            and name.endswith("Value")
            and (list(field.message_type.fields_by_name) == ["value"])
        ):
            return bits(value.value) if isinstance(value.value, float) else value.value
        return plain_google(value)
    return bits(value) if isinstance(value, float) else value


# --- betterproto -> plain data -----------------------------------------------------------------


def plain_ours(message: betterproto.Message) -> Any:
    """Through the public interface only: attributes, which_one_of, is_set."""
    found: dict[int, Any] = {}
    cls: Any = type(message)  # mypy does not understand its classproperty
    metas = cls._betterproto.meta_by_field_name
    for name, meta in metas.items():
        if meta.group and betterproto.which_one_of(message, meta.group)[0] != name:
            continue
        if (meta.optional or meta.proto_type == "message") and not message.is_set(name):
            continue
        value = getattr(message, name)
        if isinstance(value, dict):
            if value:
                found[meta.number] = {key: _our_value(one) for key, one in value.items()}
        elif isinstance(value, list):
            if value:
                found[meta.number] = [_our_value(one) for one in value]
        elif (
            meta.optional
            or meta.group
            or meta.proto_type == "message"
            or value
            or (isinstance(value, float) and bits(value) != bits(0.0))
        ):
            found[meta.number] = _our_value(value)
    if message._unknown_fields:
        found[UNKNOWN] = message._unknown_fields
    return found


def _our_value(value: Any) -> Any:
    if isinstance(value, betterproto.Message):
        return plain_ours(value)
    return bits(value) if isinstance(value, float) else value
