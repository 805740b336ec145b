"""call, describe: the methods of any server that answers reflection, without its schema."""

from __future__ import annotations

import sys
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streamkit.cli import exits
from streamkit.cli.exits import UsageError, value_of
from streamkit.cli.input.parsing import duration
from streamkit.cli.later import json
from streamkit.cli.options import JSON_FORMATS, Count, JsonOutput, Timeout, command, one_of
from streamkit.cli.session import Session

if TYPE_CHECKING:
    import betterproto

    from streamkit.client import AsyncClient

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands to the application."""
    command(app, "call")(_call)
    command(app, "describe")(_describe)


async def _call(
    session: Session,
    method: Annotated[str, typer.Argument(metavar="PACKAGE.SERVICE/METHOD")],
    data: Annotated[
        str,
        typer.Argument(
            metavar="[JSON|-]", help="The request, or several after each other; - reads it."
        ),
    ] = "",
    data_too: Annotated[
        str, typer.Option("-d", "--data", hidden=True, help="The request, as grpcurl has it.")
    ] = "",
    headers: Annotated[
        list[str] | None,
        typer.Option("-H", "--header", metavar="KEY=VALUE", help="Metadata of the call."),
    ] = None,
    count: Count = 0,
    timeout: Timeout = "",
) -> int:
    """Call a method and print its replies as JSON, one a line."""
    from streamkit.codec import from_json, to_json
    from streamkit.transport import ServiceStub

    service, sign, name = method.strip("/").rpartition("/")
    if not sign:
        service, _, name = method.rpartition(".")
    if not service or not name:
        raise UsageError(
            f"{method!r} is not PACKAGE.SERVICE/METHOD; `streamkit describe` lists them"
        )
    data = data or data_too or "{}"
    asked = list(_documents(sys.stdin.read() if data == "-" else data))
    metadata = dict(value_of("--header", _pair, text) for text in headers or ())
    seconds = value_of("--timeout", duration, timeout) if timeout else None
    async with session.client(check=False) as client:
        schema = await _schema(client, service)
        described = schema.method(service, name)
        request_type = schema.message(described.input_type)
        reply_type = schema.message(described.output_type)
        requests = [from_json(request_type, text) for text in asked]
        if len(requests) != 1 and not described.client_streaming:
            raise UsageError(f"{name} takes one request, and these are {len(requests)}")
        stub, path = (
            client.stub(ServiceStub[Any], timeout=seconds, metadata=metadata),
            f"/{service}/{name}",
        )
        replies = _replies(stub, path, described, requests, request_type, reply_type)
        async with aclosing(replies):
            shown = 0
            async for reply in replies:
                session.output.line(to_json(reply))
                session.output.flush()
                shown += 1
                if shown == count:
                    break
    return exits.OK


async def _replies(
    stub: Any,
    path: str,
    method: Any,
    requests: list[betterproto.Message],
    request_type: type[betterproto.Message],
    reply_type: type[betterproto.Message],
) -> AsyncGenerator[betterproto.Message, None]:
    """The replies of a method of any kind."""
    if method.server_streaming:
        found = (
            stub._stream_stream(path, requests, request_type, reply_type)
            if method.client_streaming
            else stub._unary_stream(path, requests[0], reply_type)
        )
        async for reply in found:
            yield reply
    elif method.client_streaming:
        yield await stub._stream_unary(path, requests, request_type, reply_type)
    else:
        yield await stub._unary_unary(path, requests[0], reply_type)


async def _describe(
    session: Session,
    what: Annotated[str, typer.Argument(metavar="[SERVICE[/METHOD]]", show_default=False)] = "",
    output: JsonOutput = "pretty",
) -> int:
    """List the services of a server, or the methods of one, with their comments."""
    service, _, only = what.strip("/").partition("/")
    from streamkit.doors.page.catalog import methods_json
    from streamkit.errors import NotFoundError

    one_of("--output", output, JSON_FORMATS)
    async with session.client(check=False) as client:
        names = [service] if service else await _services(client)
        found: list[Any] = []
        for name in names:
            files = await _files(client, name)
            found += json.loads(methods_json([_joined(files)], [name]))
            if only:
                (await _schema(client, service)).method(service, only)  # says which it may be
                for one in found:
                    one["methods"] = [m for m in one["methods"] if m["name"] == only]
    if not found:
        raise NotFoundError(f"there is no service {service}" if service else "there are none")
    if output == "json":
        session.output.line(json.dumps(found, ensure_ascii=False))
        return exits.OK
    if output == "jsonl":
        for one in found:
            session.output.line(json.dumps(one, ensure_ascii=False))
        return exits.OK
    for one in found:
        session.output.line(one["name"])
        for method in one["methods"]:
            takes = ("stream " if method["requests"] else "") + method["input"]
            gives = ("stream " if method["replies"] else "") + method["output"]
            session.output.line(f"  {method['name']}({takes}) -> {gives}")
            if service:
                for line in method["comment"].splitlines():
                    session.output.line(f"      {line.strip()}")
                example = json.dumps(method["example"], ensure_ascii=False)
                path = f"{one['name']}/{method['name']}"
                session.output.line(f"      streamkit call {path} '{example}'")
    return exits.OK


async def _services(client: AsyncClient) -> list[str]:
    """The services of the server, those of gRPC itself last."""
    answer = await _reflected(client, list_services="*")
    names = [one.name for one in answer.list_services_response.service]
    return sorted(names, key=lambda name: (name.startswith("grpc."), name))


async def _schema(client: AsyncClient, service: str) -> Any:
    from betterproto.lib.google.protobuf import FileDescriptorProto

    from streamkit.codec.message.reflected import Schema

    return Schema([FileDescriptorProto().parse(file) for file in await _files(client, service)])


async def _files(client: AsyncClient, service: str) -> list[bytes]:
    """The descriptors of what describes a service, imports included."""
    from betterproto.lib.google.protobuf import FileDescriptorProto

    answer = await _reflected(client, file_containing_symbol=service)
    found: dict[str, bytes] = {}
    waiting = list(answer.file_descriptor_response.file_descriptor_proto)
    while waiting:
        data = waiting.pop()
        file = FileDescriptorProto().parse(data)
        if file.name in found:
            continue
        found[file.name] = data
        here = {FileDescriptorProto().parse(one).name for one in waiting}
        for name in file.dependency:
            # Other servers than ours give one file at a time.
            if name not in found and name not in here:
                more = await _reflected(client, file_by_filename=name)
                waiting += more.file_descriptor_response.file_descriptor_proto
                here.add(name)
    return list(found.values())


def _joined(files: list[bytes]) -> bytes:
    """A set of descriptors, its files left as they are."""
    from streamkit.codec.wire.scan import varint

    return b"".join(b"\x0a" + varint(len(file)) + file for file in files)


async def _reflected(client: AsyncClient, **asked: str) -> Any:
    """Ask the server about itself, in the newer protocol or else in the older one."""
    import betterproto

    from streamkit.errors import NotFoundError, UnimplementedError
    from streamkit.generated.grpc.reflection import v1, v1alpha

    for wire in (v1, v1alpha):
        stub = client.stub(wire.ServerReflectionStub)
        request = wire.ServerReflectionRequest(**asked)
        try:
            answers = [one async for one in stub.server_reflection_info([request])]
        except UnimplementedError:
            continue
        answer = answers[0]
        if betterproto.which_one_of(answer, "message_response")[0] == "error_response":
            (name,) = asked.values()
            hint = "`streamkit describe` lists what it has"
            if "file_containing_symbol" in asked:
                near = get_close_matches(name, await _services(client), 1)
                hint = f"did you mean {near[0]}?" if near else hint
            raise NotFoundError(f"the server does not describe {name}", hint=hint)
        return answer
    raise UnimplementedError("the server does not answer reflection, so its methods are not known")


def _documents(text: str) -> Iterator[str]:
    """The JSON documents that follow each other in a text."""
    decoder, place = json.JSONDecoder(), 0
    text = text.strip()
    while place < len(text):
        try:
            _, end = decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise UsageError(f"the request is no JSON: {error}") from None
        yield text[place:end]
        place = end + len(text[end:]) - len(text[end:].lstrip())


def _pair(text: str) -> tuple[str, str]:
    key, sign, value = text.partition("=")
    if not sign or not key:
        raise ValueError("give KEY=VALUE")
    return key.lower(), value
