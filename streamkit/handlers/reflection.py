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
from streamkit.errors import DecodeError, InvalidArgumentError
from streamkit.generated.grpc.reflection import v1, v1alpha

__all__ = ["ReflectionAlphaHandler", "ReflectionHandler"]

_OWN_SERVICES = frozenset(
    {"grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"}
)


class ReflectionHandler(v1.ServerReflectionBase):
    """Answers in the v1 protocol.

    `descriptor_sets` are further outputs of `protoc --include_imports --descriptor_set_out`, beside
    streamkit's own; of two files of one name the first counts. `services` are the names to list
    beside reflection's own; without them all that the sets describe.
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
        async for request in requests:
            response = wire.ServerReflectionResponse(
                valid_host=request.host, original_request=request
            )
            index = self._index
            file: str | None = None
            match betterproto.which_one_of(request, "message_request"):
                case "file_by_filename", str(name):
                    file = name
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


class _Index:
    """Where each file, symbol and extension is found. Parsed when it is first asked."""

    def __init__(self, descriptor_sets: Iterable[bytes]) -> None:
        self._raw_files: list[bytes] = []
        for place, descriptor_set in enumerate(descriptor_sets, -1):  # our own comes first
            try:
                self._raw_files += decode(_RawSet, descriptor_set).file
            except DecodeError as error:
                raise InvalidArgumentError(
                    f"descriptor_sets[{place}] is not a descriptor set: {error}",
                    hint="protoc --include_imports --descriptor_set_out writes one.",
                ) from None

    @cached_property
    def _files(self) -> dict[str, tuple[bytes, FileDescriptorProto]]:
        found: dict[str, tuple[bytes, FileDescriptorProto]] = {}
        for raw in self._raw_files:
            file = FileDescriptorProto().parse(raw)
            found.setdefault(file.name, (raw, file))
        return found

    @cached_property
    def files_of_symbols(self) -> dict[str, str]:
        """Full name of whatever has one -> name of its file."""
        return {
            symbol: name for name, (_, file) in self._files.items() for symbol in _symbols(file)
        }

    @cached_property
    def services(self) -> list[str]:
        return sorted(
            ".".join(filter(None, (file.package, service.name)))
            for _, file in self._files.values()
            for service in file.service
        )

    @cached_property
    def files_of_extensions(self) -> dict[tuple[str, int], str]:
        return {
            (extension.extendee.removeprefix("."), extension.number): name
            for name, (_, file) in self._files.items()
            for extension in _extensions(file)
        }

    def extension_numbers(self, type_name: str) -> list[int]:
        return sorted(number for name, number in self.files_of_extensions if name == type_name)

    def with_imports(self, file: str | None) -> list[bytes]:
        """The named file and all that it imports; empty if it is not known."""
        found: dict[str, bytes] = {}
        waiting = [] if file is None else [file]
        while waiting:
            name = waiting.pop()
            if name not in found and name in self._files:
                raw, parsed = self._files[name]
                found[name] = raw
                waiting += parsed.dependency
        return list(found.values())


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
