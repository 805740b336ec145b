"""The codec next to stock betterproto, its Rust codec and google.protobuf (upb).

Every contender runs in a process of its own, several times in turn; the best round counts. The
stock process hides betterproto_rust_codec, the Rust process needs it (dependency group "bench").
"""

from __future__ import annotations

import gc
import importlib.util
import json
import subprocess
import sys
import tempfile
import timeit
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "results" / "codec.json"
ROUNDS = 3
CONTENDERS = ("ours", "stock", "rust", "upb")
NOW = datetime(2024, 5, 17, 8, 30, 1, 123456, tzinfo=UTC)

EVERY_KIND = """\
syntax = "proto3";
package bench;
import "google/protobuf/timestamp.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/wrappers.proto";
enum Colour { NONE = 0; RED = 1; BLUE = 2; }
message Inner { int32 number = 1; string text = 2; }
message Everything {
  double a_double = 1; float a_float = 2; int32 a_int32 = 3; int64 a_int64 = 4;
  uint32 a_uint32 = 5; uint64 a_uint64 = 6; sint32 a_sint32 = 7; sint64 a_sint64 = 8;
  fixed32 a_fixed32 = 9; fixed64 a_fixed64 = 10; sfixed32 a_sfixed32 = 11;
  sfixed64 a_sfixed64 = 12; bool a_bool = 13; string a_string = 14; bytes some_bytes = 15;
  Colour colour = 16; Inner inner = 17; google.protobuf.Timestamp time = 18;
  google.protobuf.Duration span = 19; google.protobuf.Int64Value wrapped = 20;
  optional int32 maybe = 21; oneof choice { string text = 22; int32 number = 23; }
  repeated int32 numbers = 24; repeated string texts = 25; repeated Inner inners = 26;
  map<string, string> labels = 27; map<int32, double> weights = 28; map<string, Inner> named = 29;
  repeated google.protobuf.Int64Value wrappers = 30;
}
"""


def best(function: Callable[[], object], seconds: float = 0.25) -> float:
    """Microseconds a call, in the best of several runs."""
    once = max(timeit.timeit(function, number=1), 1e-7)
    number = max(1, int(seconds / 8 / once))
    gc.collect()
    return min(timeit.repeat(function, number=number, repeat=8)) / number * 1e6


def update_values(timestamp: Any) -> dict[str, Any]:
    return {
        "topic": "orders",
        "message": "Update from orders",
        "timestamp": timestamp,
        "metadata": {"source": "system"},
        "sequence": 123_456,
    }


def columns(index: int) -> dict[str, str]:
    return {"id": str(index), "name": f"Record {index}", "value": f"{index * 1.5:.2f}"}


def generate(target: Path, *plugins: str) -> None:
    """Run protoc for the message with every kind of field and for the product's schema."""
    (target / "everything.proto").write_text(EVERY_KIND)
    include = str(files("grpc_tools") / "_proto")
    bin_dir = str(Path(sys.executable).parent)
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc"),
            *(f"-I{target}", f"-I{ROOT / 'schema'}", f"-I{include}"),
            *(f"--{plugin}_out={target}" for plugin in plugins),
            *("everything.proto", "stream_service.proto"),
        ],
        check=True,
        env={"PATH": f"{bin_dir}:/usr/bin:/bin"},
    )


def everything(inner: Any, red: Any, **special: Any) -> dict[str, Any]:
    return {
        "a_double": 1.5, "a_float": 2.5, "a_int32": -3, "a_int64": 1 << 40, "a_uint32": 5,
        "a_uint64": 1 << 50, "a_sint32": -7, "a_sint64": -(1 << 40), "a_fixed32": 9,
        "a_fixed64": 10, "a_sfixed32": -11, "a_sfixed64": -12, "a_bool": True,
        "a_string": "a string", "some_bytes": b"bytes", "colour": red,
        "inner": inner(number=1, text="inner"), "maybe": 0, "number": 42,
        "numbers": list(range(20)), "texts": ["one", "two", "three"],
        "inners": [inner(number=n, text="x") for n in range(5)],
        "labels": {"a": "1", "b": "2"}, "weights": {1: 1.0, 2: 2.0},
        "named": {"a": inner(number=1)}, **special,
    }  # fmt: skip


def measure_betterproto(target: Path) -> dict[str, float]:
    """Run in the process of ours, stock or rust; what differs is what was imported before."""
    sys.path.insert(0, str(target))
    from bench_every import Colour, Everything, Inner

    import bench as _  # noqa: F401  # the package of this file; the generated one is bench_every
    from streamkit.generated.streamservice import LogEntry, QueryResult, Row, Update

    def make_update() -> Any:
        return Update(**update_values(NOW))

    def make_log() -> Any:
        return LogEntry(
            timestamp=NOW, level="info", message="request served", service="api",
            fields={"path": "/health", "status": "200"}, sequence=77,
        )  # fmt: skip

    def make_result() -> Any:
        rows = [Row(columns=columns(index)) for index in range(500)]
        return QueryResult(rows=rows, batch_number=1, total_batches=20)

    def make_everything() -> Any:
        special = {"time": NOW, "span": timedelta(seconds=90), "wrapped": 7}
        return Everything(**everything(Inner, Colour.RED, **special))

    figures: dict[str, float] = {}
    for name, make in {
        "Update": make_update,
        "LogEntry": make_log,
        "QueryResult of 500 rows": make_result,
        "every kind of field": make_everything,
    }.items():
        message = make()
        cls, data = type(message), bytes(message)
        figures[f"{name}: construct"] = best(make)
        figures[f"{name}: encode"] = best(message.SerializeToString)
        figures[f"{name}: decode"] = best(partial(cls.FromString, data))
    update = Update.FromString(bytes(make_update()))
    timer = timeit.Timer("u.topic;u.topic;u.topic;u.topic;u.topic", globals={"u": update})
    figures["Update: read an attribute"] = min(timer.repeat(9, 20_000)) / 100_000 * 1e6

    def read_all() -> Any:
        u = Update.FromString(data)
        return u.topic, u.message, u.timestamp, u.metadata, u.sequence

    data = bytes(make_update())
    figures["Update: decode and read five fields"] = best(read_all)
    return figures


def measure_upb(target: Path) -> dict[str, float]:
    sys.path.insert(0, str(target))
    import everything_pb2 as every
    import stream_service_pb2 as service
    from google.protobuf.internal import api_implementation

    assert api_implementation.Type() == "upb"

    def make_update() -> Any:
        return service.Update(**update_values(NOW))

    def make_log() -> Any:
        return service.LogEntry(
            timestamp=NOW, level="info", message="request served", service="api",
            fields={"path": "/health", "status": "200"}, sequence=77,
        )  # fmt: skip

    def make_result() -> Any:
        rows = [service.Row(columns=columns(index)) for index in range(500)]
        return service.QueryResult(rows=rows, batch_number=1, total_batches=20)

    def make_everything() -> Any:
        special = {"time": NOW, "span": timedelta(seconds=90), "wrapped": {"value": 7}}
        return every.Everything(**everything(every.Inner, every.RED, **special))

    figures: dict[str, float] = {}
    for name, make in {
        "Update": make_update,
        "LogEntry": make_log,
        "QueryResult of 500 rows": make_result,
        "every kind of field": make_everything,
    }.items():
        message = make()
        cls, data = type(message), message.SerializeToString()
        figures[f"{name}: construct"] = best(make)
        figures[f"{name}: encode"] = best(message.SerializeToString)
        figures[f"{name}: decode"] = best(partial(cls.FromString, data))
    update = make_update()
    timer = timeit.Timer("u.topic;u.topic;u.topic;u.topic;u.topic", globals={"u": update})
    figures["Update: read an attribute"] = min(timer.repeat(9, 20_000)) / 100_000 * 1e6

    def read_all() -> Any:
        u = service.Update.FromString(data)
        return u.topic, u.message, u.timestamp.ToDatetime(UTC), dict(u.metadata), u.sequence

    data = update.SerializeToString()
    figures["Update: decode and read five fields"] = best(read_all)
    return figures


def worker(contender: str, target: Path) -> dict[str, float]:
    if contender == "upb":
        return measure_upb(target)
    if contender == "stock":
        sys.modules["betterproto_rust_codec"] = None  # type: ignore[assignment]  # for this run
    import betterproto

    if contender == "ours":
        import streamkit.codec  # noqa: F401  # for its effect
    elif contender == "rust":
        import betterproto_rust_codec  # noqa: F401  # for its effect
    patched = betterproto.Message.parse.__module__, betterproto.Message.parse.__name__
    assert (patched == ("betterproto", "parse")) == (contender == "stock"), patched
    return measure_betterproto(target)


FLOORS = {
    ("Update: construct", "stock"): 25,
    ("Update: encode", "stock"): 35,
    ("Update: decode", "stock"): 45,
    ("Update: read an attribute", "stock"): 10,
    ("QueryResult of 500 rows: encode", "stock"): 40,
    ("QueryResult of 500 rows: decode", "stock"): 75,
    ("Update: encode", "rust"): 3,
    ("Update: decode", "rust"): 8,
    ("QueryResult of 500 rows: encode", "rust"): 3,
    ("QueryResult of 500 rows: decode", "rust"): 8,
    ("Update: decode and read five fields", "upb"): 1 / 3,
}
"""How many times better than a peer ours must be."""


def run() -> list[dict[str, Any]]:
    """Measure everything and return the rows of the table."""
    rust = importlib.util.find_spec("betterproto_rust_codec") is not None
    contenders = [name for name in CONTENDERS if name != "rust" or rust]
    figures: dict[str, dict[str, float]] = {name: {} for name in contenders}
    with tempfile.TemporaryDirectory() as name:
        target = Path(name)
        generate(target, "python", "python_betterproto")
        (target / "bench").rename(target / "bench_every")
        for _ in range(ROUNDS):
            for contender in contenders:
                out = subprocess.run(
                    [sys.executable, "-m", "bench.codec", "--worker", contender, name],
                    check=True,
                    cwd=ROOT,
                    stdout=subprocess.PIPE,
                ).stdout
                for what, figure in json.loads(out).items():
                    known = figures[contender].get(what, figure)
                    figures[contender][what] = min(known, figure)
    called = {"stock": "betterproto", "rust": "betterproto, Rust codec", "upb": "google.protobuf"}
    return [
        {
            "name": what,
            "unit": "us",
            "ours": round(ours, 3),
            "peer": called[peer],
            "peer_figure": round(figures[peer][what], 3),
            "ratio": round(figures[peer][what] / ours, 2),
            **({"floor": FLOORS[what, peer]} if (what, peer) in FLOORS else {}),
        }
        for what, ours in figures["ours"].items()
        for peer in contenders
        if peer != "ours"
    ]


def main() -> None:
    if sys.argv[1:2] == ["--worker"]:
        print(json.dumps(worker(sys.argv[2], Path(sys.argv[3]))))
        return
    rows = run()
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")
    for row in rows:
        print(
            f"{row['name']:42} {row['ours']:10.2f} {row['unit']}  {row['ratio']:7.1f}x of "
            f"{row['peer']} ({row['peer_figure']:.2f})"
        )


if __name__ == "__main__":
    main()
