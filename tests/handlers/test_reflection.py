"""Reflection, asked by google's own messages over grpcio."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import ModuleType
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpclib.reflection.v1 import reflection_pb2 as v1
from grpclib.reflection.v1alpha import reflection_pb2 as v1alpha

from streamkit.errors import InvalidArgumentError
from streamkit.handlers import ReflectionHandler
from streamkit.testing import serve

OWN = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
]
OURS = [
    "streamservice.AdminService",
    "streamservice.ProducerService",
    "streamservice.StreamService",
]


def users_descriptors() -> bytes:
    """What protoc would make of a user's file, with an extension in it."""
    file = FileDescriptorProto(name="shop/shop.proto", package="shop", syntax="proto2")
    file.dependency.append("google/protobuf/timestamp.proto")
    order = file.message_type.add(name="Order")
    order.field.add(name="at", number=1, label=1, type=11, type_name=".google.protobuf.Timestamp")
    order.extension_range.add(start=100, end=200)
    order.nested_type.add(name="Line").field.add(name="sku", number=1, label=1, type=9)
    file.enum_type.add(name="State").value.add(name="OPEN", number=0)
    file.extension.add(name="gift", number=100, label=1, type=8, extendee=".shop.Order")
    method = file.service.add(name="Shop").method.add(name="Place")
    method.input_type = method.output_type = ".shop.Order"
    return bytes(FileDescriptorSet(file=[file]).SerializeToString())


async def ask(address: str, wire: ModuleType, *requests: Any) -> list[Any]:
    package = wire.DESCRIPTOR.package
    async with grpc.aio.insecure_channel(address) as channel:
        method = channel.stream_stream(
            f"/{package}.ServerReflection/ServerReflectionInfo",
            request_serializer=wire.ServerReflectionRequest.SerializeToString,
            response_deserializer=wire.ServerReflectionResponse.FromString,
        )

        async def sent() -> AsyncIterator[Any]:
            for request in requests:
                yield request

        return [response async for response in method(sent())]


def pool_of(response: Any) -> DescriptorPool:
    """A pool of the files of a response; dependencies come after what needs them."""
    pool = DescriptorPool()
    files = [
        FileDescriptorProto.FromString(data)
        for data in response.file_descriptor_response.file_descriptor_proto
    ]
    added: set[str] = set()
    while files:
        ready = [file for file in files if added.issuperset(file.dependency)]
        assert ready, f"imports are missing of {[file.name for file in files]}"
        for file in ready:
            pool.Add(file)
            added.add(file.name)
            files.remove(file)
    return pool


@pytest.mark.parametrize("wire", [v1, v1alpha])
async def test_services_and_their_files(wire: ModuleType) -> None:
    request = wire.ServerReflectionRequest
    async with serve() as address:
        listed, found, file, missing = await ask(
            address,
            wire,
            request(list_services="*", host="h"),
            request(file_containing_symbol="streamservice.ProducerService.Write"),
            request(file_by_filename="google/protobuf/timestamp.proto"),
            request(file_containing_symbol="streamservice.Nothing"),
        )
    assert [service.name for service in listed.list_services_response.service] == [*OWN, *OURS]
    assert listed.valid_host == "h"
    assert found.original_request.file_containing_symbol == "streamservice.ProducerService.Write"

    pool = pool_of(found)
    service = pool.FindServiceByName("streamservice.ProducerService")
    assert "Write" in [method.name for method in service.methods]
    update = pool.FindMessageTypeByName("streamservice.Update")
    assert {field.name: field.number for field in update.fields}["metadata"] == 4
    assert len(file.file_descriptor_response.file_descriptor_proto) == 1
    assert missing.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]


@pytest.mark.parametrize("symbol", OWN + OURS)
async def test_every_listed_service_describes_itself(symbol: str) -> None:
    async with serve() as address:
        [found] = await ask(address, v1, v1.ServerReflectionRequest(file_containing_symbol=symbol))
    assert pool_of(found).FindServiceByName(symbol).methods


async def test_a_users_own_files() -> None:
    request = v1.ServerReflectionRequest
    extension = v1.ExtensionRequest(containing_type="shop.Order", extension_number=100)
    symbols = ["shop.Shop.Place", "shop.Order.Line.sku", "shop.gift", "shop.OPEN", "shop.State"]
    async with serve(descriptor_sets=[users_descriptors()]) as address:
        by_extension, numbers, no_extension, *by_symbol = await ask(
            address,
            v1,
            request(file_containing_extension=extension),
            request(all_extension_numbers_of_type="shop.Order"),
            request(all_extension_numbers_of_type="shop.Nothing"),
            *(request(file_containing_symbol=symbol) for symbol in symbols),
        )
    assert pool_of(by_extension).FindMessageTypeByName("shop.Order").fields_by_name["at"]
    assert numbers.all_extension_numbers_response.base_type_name == "shop.Order"
    assert list(numbers.all_extension_numbers_response.extension_number) == [100]
    assert no_extension.HasField("error_response")
    for found in by_symbol:
        assert pool_of(found).FindServiceByName("shop.Shop")


async def test_files_are_served_in_their_original_bytes() -> None:
    original = FileDescriptorSet.FromString(users_descriptors()).file[0].SerializeToString()
    wanted = v1.ServerReflectionRequest(file_by_filename="shop/shop.proto")
    async with serve(descriptor_sets=[users_descriptors()]) as address:
        [found] = await ask(address, v1, wanted)
    assert original in found.file_descriptor_response.file_descriptor_proto


def test_what_is_no_descriptor_set_is_refused_at_once() -> None:
    with pytest.raises(InvalidArgumentError, match=r"descriptor_sets\[1\]"):
        ReflectionHandler([users_descriptors(), b'syntax = "proto3";'])


def clinic(*, imports: bool) -> bytes:
    """A user's file that is called like one of streamkit's own, and like another user's."""
    files = []
    if imports:
        files.append(FileDescriptorProto(name="common.proto", package="clinic", syntax="proto3"))
        files[0].message_type.add(name="Id")
    name = "grpc/health/v1/health.proto"
    vitals = FileDescriptorProto(name=name, package="clinic.v1", syntax="proto3")
    vitals.message_type.add(name="Pulse")
    if imports:
        vitals.dependency.append("common.proto")
        vitals.message_type[0].field.add(
            name="id", number=1, label=1, type=11, type_name=".clinic.Id"
        )
    method = vitals.service.add(name="Vitals").method.add(name="Watch")
    method.input_type = method.output_type = ".clinic.v1.Pulse"
    return bytes(FileDescriptorSet(file=[*files, vitals]).SerializeToString())


async def test_files_of_one_name_are_told_apart() -> None:
    other = FileDescriptorProto(name="common.proto", package="other", syntax="proto3")
    other.message_type.add(name="Id")
    sets = [
        FileDescriptorSet(file=[other]).SerializeToString(),
        clinic(imports=True),
        clinic(imports=True),
    ]
    symbols = ["clinic.v1.Vitals", "grpc.health.v1.Health", "other.Id", "clinic.Id"]
    async with serve(descriptor_sets=sets) as address:
        vitals, health, *ids = await ask(
            address, v1, *(v1.ServerReflectionRequest(file_containing_symbol=s) for s in symbols)
        )
    assert pool_of(vitals).FindServiceByName("clinic.v1.Vitals").methods
    assert pool_of(vitals).FindMessageTypeByName("clinic.Id")
    assert pool_of(health).FindServiceByName("grpc.health.v1.Health").methods
    for found, symbol in zip(ids, symbols[2:], strict=True):
        assert pool_of(found).FindMessageTypeByName(symbol)


async def test_a_question_that_is_too_long() -> None:
    """It would come back with the answer, as often as it is asked."""
    async with serve() as address:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ask(address, v1, v1.ServerReflectionRequest(file_by_filename="x" * 10_000))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
