"""The standard reflection service (v1 and v1alpha), from descriptor sets made by protoc.

Files are served in their original bytes; google.protobuf is not needed on this side.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from types import ModuleType
from typing import Any

import betterproto
from betterproto.lib.google.protobuf import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from grpclib.const import Status

from streamkit.codec import decode
from streamkit.config import RequestLimits
from streamkit.errors import DecodeError, InvalidArgumentError
from streamkit.generated.grpc.reflection import v1, v1alpha

__all__ = ["ReflectionAlphaHandler", "ReflectionHandler"]

_OWN_SERVICES = frozenset(
    {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
)


class ReflectionHandler(v1.ServerReflectionBase):
    """Answers in the v1 protocol.

    `descriptor_sets` are further outputs of `protoc --include_imports --descriptor_set_out`, beside
    streamkit's own; files of one name in different sets are told apart by their symbols. `services`
    are the names to list beside reflection's own; without them all that the sets describe.
    """

    def __init__(
        self, descriptor_sets: Iterable[bytes] = (), *, services: Iterable[str] | None = None
    ) -> None:
        own = files("streamkit.generated").joinpath("descriptors.binpb").read_bytes()
        self._index = _Index((own, *descriptor_sets))
        self._services = None if services is None else sorted(_OWN_SERVICES.union(services))

    def server_reflection_info(
        self, server_reflection_request_iterator: AsyncIterator[v1.ServerReflectionRequest]
    ) -> AsyncIterator[v1.ServerReflectionResponse]:
        return self.answer(server_reflection_request_iterator, v1)

    async def answer(self, requests: AsyncIterator[Any], wire: ModuleType) -> AsyncIterator[Any]:
        """Answer each request in the messages of one version of the protocol."""
        most = RequestLimits().reflection
        async for request in requests:
            if (size := len(bytes(request))) > most:
                # It goes back with the answer.
                raise InvalidArgumentError(f"a request of {size} bytes is over {most}")
            response = wire.ServerReflectionResponse(
                valid_host=request.host, original_request=request
            )
            index = self._index
            file: _File | None = None
            match betterproto.which_one_of(request, "message_request"):
                case "file_by_filename", str(name):
                    file = index.files.get(name)
                case "file_containing_symbol", str(name):
                    file = index.files_of_symbols.get(name)
                case "file_containing_extension", extension if extension is not None:
                    wanted = (extension.containing_type, extension.extension_number)
                    file = index.files_of_extensions.get(wanted)
                case "all_extension_numbers_of_type", name if name in index.files_of_symbols:
                    response.all_extension_numbers_response = wire.ExtensionNumberResponse(
                        name, index.extension_numbers(name)
                    )
                    yield response
                    continue
                case "list_services", _:
                    names = index.services if self._services is None else self._services
                    response.list_services_response = wire.ListServiceResponse(
                        [wire.ServiceResponse(name) for name in names]
                    )
                    yield response
                    continue
            found = index.with_imports(file)
            if found:
                response.file_descriptor_response = wire.FileDescriptorResponse(found)
            else:
                response.error_response = wire.ErrorResponse(Status.NOT_FOUND.value, "not found")
            yield response


class ReflectionAlphaHandler(v1alpha.ServerReflectionBase):
    """Gives the answers of another handler in the older v1alpha protocol."""

    def __init__(self, reflection: ReflectionHandler) -> None:
        self._reflection = reflection

    def server_reflection_info(
        self, server_reflection_request_iterator: AsyncIterator[v1alpha.ServerReflectionRequest]
    ) -> AsyncIterator[v1alpha.ServerReflectionResponse]:
        return self._reflection.answer(server_reflection_request_iterator, v1alpha)


@dataclass(eq=False, repr=False)
class _RawSet(betterproto.Message):
    """A FileDescriptorSet whose files are left as the bytes that they are."""

    file: list[bytes] = betterproto.bytes_field(1)  # noqa: RUF009  # how betterproto declares


@dataclass(eq=False, frozen=True, slots=True)
class _File:
    """A file of a descriptor set. Two sets may have different files of one name."""

    raw: bytes
    parsed: FileDescriptorProto
    beside: dict[str, _File]
    """The files of its set, by name: its imports are these."""


class _Index:
    """Where each file, symbol and extension is found. Parsed when it is first asked."""

    def __init__(self, descriptor_sets: Iterable[bytes]) -> None:
        self._raw_sets: list[list[bytes]] = []
        for place, descriptor_set in enumerate(descriptor_sets, -1):  # our own comes first
            try:
                self._raw_sets.append(decode(_RawSet, descriptor_set).file)
            except DecodeError as error:
                raise InvalidArgumentError(
                    f"descriptor_sets[{place}] is not a descriptor set: {error}",
                    hint="protoc --include_imports --descriptor_set_out writes one.",
                ) from None

    @cached_property
    def _files(self) -> list[_File]:
        """Each file once, whatever sets it is in."""
        found: dict[bytes, _File] = {}
        for raw_set in self._raw_sets:
            beside: dict[str, _File] = {}
            for raw in raw_set:
                file = found.get(raw)
                if file is None:
                    file = found[raw] = _File(raw, FileDescriptorProto().parse(raw), beside)
                beside[file.parsed.name] = file
        return list(found.values())

    @cached_property
    def files(self) -> dict[str, _File]:
        """By name. Of several of one name the first counts: a symbol tells them apart."""
        return {file.parsed.name: file for file in reversed(self._files)}

    @cached_property
    def files_of_symbols(self) -> dict[str, _File]:
        """By the full name of whatever has one."""
        return {symbol: file for file in reversed(self._files) for symbol in _symbols(file.parsed)}

    @cached_property
    def services(self) -> list[str]:
        return sorted(
            {
                ".".join(filter(None, (file.parsed.package, service.name)))
                for file in self._files
                for service in file.parsed.service
            }
        )

    @cached_property
    def files_of_extensions(self) -> dict[tuple[str, int], _File]:
        return {
            (extension.extendee.removeprefix("."), extension.number): file
            for file in reversed(self._files)
            for extension in _extensions(file.parsed)
        }

    def extension_numbers(self, type_name: str) -> list[int]:
        return sorted(number for name, number in self.files_of_extensions if name == type_name)

    def with_imports(self, file: _File | None) -> list[bytes]:
        """The file and all that it imports; empty for none."""
        found: dict[str, _File] = {}
        waiting = [] if file is None else [file]
        while waiting:
            file = waiting.pop()
            if found.setdefault(file.parsed.name, file) is file:
                names = [name for name in file.parsed.dependency if name not in found]
                imports = [file.beside.get(name) or self.files.get(name) for name in names]
                waiting += [imported for imported in imports if imported is not None]
        return [file.raw for file in found.values()]


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    prefix = f"{file.package}." if file.package else ""
    for message in file.message_type:
        yield from _message_symbols(message, prefix)
    for enum in file.enum_type:
        yield from _enum_symbols(enum, prefix)
    for extension in file.extension:
        yield prefix + extension.name
    for service in file.service:
        yield prefix + service.name
        for method in service.method:
            yield f"{prefix}{service.name}.{method.name}"


def _message_symbols(message: DescriptorProto, prefix: str) -> Iterator[str]:
    name = prefix + message.name
    yield name
    for field in (*message.field, *message.extension):
        yield f"{name}.{field.name}"
    for oneof in message.oneof_decl:
        yield f"{name}.{oneof.name}"
    for enum in message.enum_type:
        yield from _enum_symbols(enum, f"{name}.")
    for nested in message.nested_type:
        yield from _message_symbols(nested, f"{name}.")


def _enum_symbols(enum: EnumDescriptorProto, prefix: str) -> Iterator[str]:
    yield prefix + enum.name
    for value in enum.value:
        # The values of an enum are named beside it, as in C++.
        yield prefix + value.name
        yield f"{prefix}{enum.name}.{value.name}"


def _extensions(part: FileDescriptorProto | DescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from part.extension
    nested = part.message_type if isinstance(part, FileDescriptorProto) else part.nested_type
    for message in nested:
        yield from _extensions(message)
