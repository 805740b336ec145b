"""The plain contract, compiled by google's own toolchain, against the real server process.

The contract is written out here and not read from the schema: this is what must never change.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections import defaultdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from streamkit.codec import StreamkitCodec
from streamkit.generated.streamservice import (
    JobReport,
    LogEntry,
    Update,
    WriteReply,
    WriteRequest,
)
from streamkit.transport import Channel
from tests.processes import ServerProcess

CONTRACT = """
syntax = "proto3";

package streamservice;

import "google/protobuf/timestamp.proto";

service StreamService {
  rpc SubscribeToUpdates(SubscribeRequest) returns (stream Update);
  rpc StreamQueryResults(QueryRequest) returns (stream QueryResult);
  rpc WatchJobProgress(JobRequest) returns (stream JobProgress);
  rpc TailLogs(LogRequest) returns (stream LogEntry);
}

message SubscribeRequest { repeated string topics = 1; string client_id = 2; }
message Update {
  string topic = 1;
  string message = 2;
  google.protobuf.Timestamp timestamp = 3;
  map<string, string> metadata = 4;
}
message QueryRequest { string query = 1; int32 batch_size = 2; }
message QueryResult {
  repeated Row rows = 1;
  int32 batch_number = 2;
  int32 total_batches = 3;
  bool is_last = 4;
}
message Row { map<string, string> columns = 1; }
message JobRequest { string job_id = 1; }
message JobProgress {
  string job_id = 1;
  int32 percentage = 2;
  string status = 3;
  string current_step = 4;
  google.protobuf.Timestamp updated_at = 5;
}
message LogRequest {
  string service_name = 1;
  string log_level = 2;
  int32 lines = 3;
  bool follow = 4;
}
message LogEntry {
  google.protobuf.Timestamp timestamp = 1;
  string level = 2;
  string message = 3;
  string service = 4;
  map<string, string> fields = 5;
}
"""


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of what protoc and its gRPC plug-in make of the contract."""
    folder = tmp_path_factory.mktemp("contract")
    (folder / "plain_contract.proto").write_text(CONTRACT)
    include = files("grpc_tools") / "_proto"
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"--proto_path={folder}",
            f"--proto_path={include}",
            f"--python_out={folder}",
            f"--grpc_python_out={folder}",
            "plain_contract.proto",
        ],
        check=True,
    )
    return folder


class PlainClient:
    """The other process, and what it has told so far of each stream."""

    def __init__(self, folder: Path, address: str) -> None:
        self._arguments = [str(Path(__file__).with_name("client.py")), str(folder), address]
        self.told: dict[str, list[dict[str, Any]]] = defaultdict(list)

    async def __aenter__(self) -> PlainClient:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, *self._arguments, stdout=asyncio.subprocess.PIPE
        )
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._process.returncode is None:
            self._process.kill()
        await self._process.communicate()

    async def until(self, *streams: str, key: str) -> None:
        """Read on until each of the streams has told this."""
        assert self._process.stdout is not None
        while not all(any(key in told for told in self.told[stream]) for stream in streams):
            line = await self._process.stdout.readline()
            assert line, f"the client ended; it had told {dict(self.told)}"
            told = json.loads(line)
            self.told[told.pop("stream")].append(told)

    def messages(self, stream: str) -> list[dict[str, Any]]:
        return [told["message"] for told in self.told[stream] if "message" in told]

    def end(self, stream: str) -> dict[str, Any]:
        return next(told for told in self.told[stream] if "ended" in told)


async def write(channel: Channel, **groups: Any) -> None:
    """Write through the pipelined stream and wait for the acknowledgement."""
    path = "/streamservice.ProducerService/Write"
    async with channel.stream(path, WriteRequest, WriteReply) as call:
        await call.send(WriteRequest(**groups))
        [reply] = await call.receive()
        assert reply.code == 0, reply.error


async def test_all_four_streams(generated: Path, tmp_path: Path) -> None:
    async with ServerProcess(journal=str(tmp_path / "store.db")) as server:
        channel = Channel(server.address, codec=StreamkitCodec())
        levels = ["warn", "info", "error", "debug", "error"]
        lines = [
            LogEntry(service="api", level=level, message=f"{number} {level}")
            for number, level in enumerate(levels)
        ]
        await write(
            channel, logs=lines, jobs=[JobReport(job_id="build", percentage=10, current_step="go")]
        )
        async with PlainClient(generated, server.address) as client:
            await client.until("updates", "jobs", "logs", key="began")
            finite = ("query", "history", "unknown job", "bad level", "no topics")
            await client.until(*finite, key="ended")
            await write(
                channel,
                updates=[
                    Update(topic="orders.eu", message="one", metadata={"who": "me"}),
                    Update(topic="other", message="not asked for"),
                    Update(topic="alerts.a.b", message="the last one"),
                ],
                logs=[
                    LogEntry(service="api", level="info", message="not asked for"),
                    LogEntry(service="api", level="FATAL", message="new"),
                    LogEntry(service="web", level="error", message="not asked for"),
                    LogEntry(service="api", level="warn", message="the last one"),
                ],
                jobs=[
                    JobReport(job_id="build", percentage=60),
                    JobReport(job_id="build", status="completed"),
                ],
            )
            await client.until("updates", "logs", "jobs", key="ended")
        await channel.aclose()

    updates = client.messages("updates")
    assert [(u["topic"], u["message"]) for u in updates] == [
        ("orders.eu", "one"),
        ("alerts.a.b", "the last one"),
    ]
    assert updates[0]["metadata"] == {"who": "me"}
    assert all(update["timestamp"] for update in updates)

    jobs = client.messages("jobs")
    assert [(j.get("percentage"), j["status"]) for j in jobs] == [
        (10, "running"),
        (60, "running"),
        (100, "completed"),
    ]
    assert all(job["job_id"] == "build" and job["updated_at"] for job in jobs)
    assert client.end("jobs") == {"ended": "OK"}

    logs = client.messages("logs")
    assert [(e["level"], e["message"]) for e in logs] == [
        ("error", "2 error"),
        ("error", "4 error"),
        ("error", "new"),
        ("warn", "the last one"),
    ]
    assert logs[2]["fields"] == {"level": "FATAL"}
    assert [e["message"] for e in client.messages("history")] == [line.message for line in lines]
    assert client.end("history") == {"ended": "OK"}

    results = client.messages("query")
    assert [result["batch_number"] for result in results] == [1, 2, 3]
    assert [result.get("is_last", False) for result in results] == [False, False, True]
    assert results[-1]["total_batches"] == 3
    rows = [row["columns"] for result in results for row in result["rows"]]
    assert rows == [{"level": line.level, "message": line.message} for line in lines]

    assert client.end("unknown job")["ended"] == "NOT_FOUND"
    assert client.end("bad level")["ended"] == "INVALID_ARGUMENT"
    assert "log_level" in client.end("bad level")["details"]
    assert client.end("no topics")["ended"] == "INVALID_ARGUMENT"
    assert "topics" in client.end("no topics")["details"]
