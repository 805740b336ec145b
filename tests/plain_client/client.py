"""A client made by google's toolchain from the plain contract; it knows nothing of streamkit.

Run as a program: FOLDER (of the generated modules), ADDRESS. Opens all four streams and writes one
JSON line for each message and for what else happens to a stream.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict


def main(folder: str, address: str) -> None:
    sys.path.insert(0, folder)
    pb2 = importlib.import_module("plain_contract_pb2")
    stubs = importlib.import_module("plain_contract_pb2_grpc")
    lock = threading.Lock()

    def say(stream: str, **what: Any) -> None:
        with lock:
            print(json.dumps({"stream": stream, **what}), flush=True)

    def read(name: str, call: Any) -> None:
        try:
            metadata = dict(call.initial_metadata())
            say(name, began=metadata)
            for message in call:
                say(name, message=MessageToDict(message, preserving_proto_field_name=True))
                if getattr(message, "message", "") == "the last one":
                    call.cancel()
                    break
            say(name, ended="OK" if call.is_active() else call.code().name)
        except grpc.RpcError as error:
            say(name, ended=error.code().name, details=error.details())

    with grpc.insecure_channel(address) as channel:
        stub = stubs.StreamServiceStub(channel)
        calls = {
            "updates": stub.SubscribeToUpdates(
                pb2.SubscribeRequest(topics=["orders.*", "alerts.>"], client_id="plain")
            ),
            "jobs": stub.WatchJobProgress(pb2.JobRequest(job_id="build")),
            "unknown job": stub.WatchJobProgress(pb2.JobRequest(job_id="nothing")),
            "logs": stub.TailLogs(
                pb2.LogRequest(service_name="api", log_level="WARN", lines=2, follow=True)
            ),
            "history": stub.TailLogs(pb2.LogRequest(service_name="api")),
            "query": stub.StreamQueryResults(
                pb2.QueryRequest(
                    query="SELECT level, message FROM logs ORDER BY sequence", batch_size=2
                )
            ),
            "bad level": stub.TailLogs(pb2.LogRequest(log_level="loud")),
            "no topics": stub.SubscribeToUpdates(pb2.SubscribeRequest()),
        }
        readers = [threading.Thread(target=read, args=pair) for pair in calls.items()]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
