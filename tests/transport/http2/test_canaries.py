"""The private parts of grpclib and h2 that the transport stands on: when one moves, this fails.

Both are pinned exactly. A new version is taken by raising the pin, running this, and reading what
it names.
"""

from __future__ import annotations

import inspect
from importlib.metadata import version
from typing import Any

import grpclib.client
import grpclib.protocol
import grpclib.server
import h2.connection
import h2.settings
import h2.stream
import h2.windows
import pytest
from betterproto.grpc.grpclib_server import ServiceBase
from h2.config import H2Configuration
from h2.connection import AllowedStreamIDs, ConnectionState, H2Connection
from h2.events import StreamReset
from h2.stream import H2Stream, StreamClosedBy, StreamInputs, StreamState
from h2.utilities import SizeLimitDict

from streamkit.config import TransportLimits
from streamkit.transport.client import stubs
from streamkit.transport.http2.machine import Http2


def test_the_versions_are_the_pinned_ones() -> None:
    assert version("grpclib") == "0.4.9"
    assert version("h2") == "4.4.1"
    assert version("betterproto") == "2.0.0b7"


def server_connection() -> H2Connection:
    return H2Connection(H2Configuration(client_side=False))


@pytest.mark.parametrize(
    "name",
    [
        "_closed_streams",
        "_data_to_send",
        "_inbound_flow_control_window_manager",
        "decoder",
        "encoder",
        "highest_inbound_stream_id",
        "highest_outbound_stream_id",
        "local_settings",
        "max_inbound_frame_size",
        "max_outbound_frame_size",
        "outbound_flow_control_window",
        "remote_settings",
        "state_machine",
        "streams",
    ],
)
def test_a_connection_of_h2_has(name: str) -> None:
    assert hasattr(server_connection(), name)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("_begin_new_stream", ["self", "stream_id", "allowed_ids"]),
        ("_open_streams", ["self", "remainder"]),
        ("_receive_alt_svc_frame", ["self", "frame"]),
        ("_receive_data_frame", ["self", "frame"]),
        ("_receive_goaway_frame", ["self", "frame"]),
        ("_receive_headers_frame", ["self", "frame"]),
        ("_receive_priority_frame", ["self", "frame"]),
        ("_receive_settings_frame", ["self", "frame"]),
        ("_receive_unknown_frame", ["self", "frame"]),
        ("_stream_id_is_outbound", ["self", "stream_id"]),
    ],
)
def test_methods_of_h2_that_are_overridden_or_used(name: str, parameters: list[str]) -> None:
    assert list(inspect.signature(getattr(H2Connection, name)).parameters) == parameters


def test_the_dispatch_table_of_h2_calls_the_overrides() -> None:
    table: dict[Any, Any] = Http2(client=False, limits=TransportLimits())._frame_dispatch_table
    ours = {method.__func__ for method in table.values() if method.__func__ in vars(Http2).values()}
    assert {method.__name__ for method in ours} == {
        "_receive_alt_svc_frame",
        "_receive_data_frame",
        "_receive_goaway_frame",
        "_receive_headers_frame",
        "_receive_priority_frame",
        "_receive_settings_frame",
        "_receive_unknown_frame",
    }


def test_a_stream_of_h2_has() -> None:
    stream = H2Stream(1, H2Configuration(), 10, 20)
    assert stream.outbound_flow_control_window == 20
    assert stream._inbound_window_manager.current_window_size == 10
    assert stream._expected_content_length is None
    assert stream.state_machine.state is StreamState.IDLE
    assert stream.state_machine.headers_received is None
    assert stream.state_machine.stream_closed_by is None
    assert list(inspect.signature(stream.receive_headers).parameters) == [
        "headers",
        "end_stream",
        "header_encoding",
    ]


def test_names_of_h2() -> None:
    assert {s.name for s in StreamState} >= {"OPEN", "HALF_CLOSED_LOCAL", "HALF_CLOSED_REMOTE"}
    assert {s.name for s in ConnectionState} == {"IDLE", "CLIENT_OPEN", "SERVER_OPEN", "CLOSED"}
    assert StreamInputs.RECV_END_STREAM in StreamInputs
    assert StreamInputs.SEND_END_STREAM in StreamInputs
    assert {s.name for s in StreamClosedBy} >= {"RECV_END_STREAM", "SEND_RST_STREAM"}
    assert AllowedStreamIDs(1) is AllowedStreamIDs.ODD
    assert StreamReset(stream_id=1, error_code=2, remote_reset=False).remote_reset is False


def test_the_windows_of_h2_count_as_before() -> None:
    window = h2.windows.WindowManager(100)
    window.current_window_size -= 60
    assert not window.process_bytes(40)  # nothing below half of the window
    assert window.process_bytes(20) == 60
    assert window.current_window_size == 100


def test_settings_of_h2_hold_at_once_as_initial_values() -> None:
    code = h2.settings.SettingCodes.INITIAL_WINDOW_SIZE
    assert h2.settings.Settings(client=False, initial_values={code: 5}).initial_window_size == 5


def test_what_grpclib_expects_of_a_protocol() -> None:
    assert list(inspect.signature(grpclib.protocol.H2Protocol.__init__).parameters) == [
        "self",
        "handler",
        "config",
        "h2_config",
    ]
    assert set(grpclib.protocol.AbstractHandler.__abstractmethods__) == {
        "accept",
        "cancel",
        "close",
    }
    assert list(inspect.signature(grpclib.protocol.Connection.__init__).parameters) == [
        "self",
        "connection",
        "transport",
        "config",
    ]


def test_what_grpclib_expects_of_a_stream() -> None:
    """The names by which its client and server streams use ours."""
    source = inspect.getsource(grpclib.client) + inspect.getsource(grpclib.server)
    methods = [name for name in dir(grpclib.protocol.Stream) if not name.startswith("__")]
    assert [name for name in methods if f"_stream.{name}" in source] == [
        "closable",
        "end",
        "recv_headers",
        "recv_trailers",
        "reset",
        "reset_nowait",
        "send_headers",
    ]


def test_the_state_of_grpclibs_server_stream() -> None:
    stream = grpclib.server.Stream
    for name in (
        "_send_initial_metadata_done",
        "_send_message_done",
        "_send_trailing_metadata_done",
        "_cancel_done",
        "_messages_sent",
        "_messages_received",
    ):
        assert not getattr(stream, name), name
    assert isinstance(stream._content_type, property)


def test_the_glue_of_betterproto() -> None:
    glue = ServiceBase._call_rpc_handler_server_stream
    assert list(inspect.signature(glue).parameters) == ["self", "handler", "stream", "request"]


def test_the_client_half_of_betterproto() -> None:
    """What generated stubs call, and what ours stands in for."""
    theirs = {
        "_unary_unary": ["self", "route", "request", "response_type"],
        "_unary_stream": ["self", "route", "request", "response_type"],
        "_stream_unary": ["self", "route", "request_iterator", "request_type", "response_type"],
        "_stream_stream": ["self", "route", "request_iterator", "request_type", "response_type"],
    }
    options = ["timeout", "deadline", "metadata"]
    for name, parameters in theirs.items():
        found = inspect.signature(stubs._THEIRS[name]).parameters
        assert list(found) == [*parameters, *options], name
        assert all(found[option].kind is inspect.Parameter.KEYWORD_ONLY for option in options)
    init = inspect.signature(stubs._THEIRS["__init__"]).parameters
    assert list(init) == ["self", "channel", *options]


def test_what_holds_of_a_setting_is_the_first_of_its_values() -> None:
    for client in (True, False):
        ours = Http2(client=client, limits=TransportLimits(stream_window=70_000, max_streams=7))
        assert ours.client is client
        stream = ours._new_stream(1)
        assert stream.inbound_flow_control_window == 70_000
        assert stream.outbound_flow_control_window == ours.remote_settings.initial_window_size
        assert ours.most_streams >= 2**32 - 1
        ours.remote_settings.max_concurrent_streams = 3
        ours.remote_settings.initial_window_size = 11
        assert ours.most_streams >= 2**32 - 1  # not yet in force
        ours.remote_settings.acknowledge()
        assert ours.most_streams == ours.remote_settings.max_concurrent_streams == 3
        assert ours._new_stream(3).outbound_flow_control_window == 11


def test_streams_that_ended_are_kept_up_to_a_number() -> None:
    ours = Http2(client=False, limits=TransportLimits())
    most = ours.MAX_CLOSED_STREAMS
    assert isinstance(ours._closed_streams, SizeLimitDict)
    assert ours._closed_streams._size_limit == most
    for number in range(1, 2 * most + 21, 2):
        stream = ours._new_stream(number)
        stream.state_machine.state = StreamState.CLOSED
        stream.state_machine.stream_closed_by = StreamClosedBy.SEND_END_STREAM
        ours.forget(number)
    newest = [2 * most + 19 - 2 * back for back in range(most)]
    assert list(ours._closed_streams) == list(ours._late) == newest[::-1]
