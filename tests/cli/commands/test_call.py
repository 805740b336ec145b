"""call and describe: any method of a server that answers reflection, in JSON."""

from __future__ import annotations

import json

import pytest

from tests.cli.tools import invoke

PUBLISH = "streamservice.ProducerService/Publish"
WATCH = "streamservice.StreamService/SubscribeToUpdates"


def test_a_call_answers_in_json(server: str) -> None:
    request = '{"updates": [{"topic": "call.a", "message": "x", "metadata": {"k": "v"}}]}'
    done = invoke("call", PUBLISH, request, server=server)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["updates"]["count"] in (1, "1")
    spelled = invoke("call", f"/{PUBLISH}", "-d", "-", stdin=request, server=server)
    assert (
        json.loads(spelled.stdout)["updates"]["first"] > json.loads(done.stdout)["updates"]["first"]
    )
    asked = '{"topics": ["call.a"], "start": {"all": true}}'
    streamed = invoke("call", WATCH, asked, "--count", "2", server=server)
    updates = [json.loads(line) for line in streamed.stdout.splitlines()]
    assert [(u["message"], u["metadata"]) for u in updates] == [("x", {"k": "v"})] * 2
    both = invoke("call", "streamservice.ProducerService.Write", request * 2, server=server)
    assert len(both.stdout.splitlines()) == 2, both.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((PUBLISH, '{"updates": [{"topc": "a"}]}'), 2, "topc"),
        ((PUBLISH, "{"), 2, "the request is no JSON: "),
        ((PUBLISH, "{} {}"), 2, "Publish takes one request, and these are 2"),
        (("streamservice.ProducerService/Publsh",), 5, "did you mean Publish?"),
        (("nothing.Here/Publish",), 5, "the server does not describe nothing.Here"),
        (("Publish",), 2, "is not PACKAGE.SERVICE/METHOD"),
        ((PUBLISH, "{}", "-H", "x"), 2, "--header: give KEY=VALUE"),
    ],
)
def test_what_is_wrong_is_one_line(words: list[str], code: int, said: str, server: str) -> None:
    done = invoke("call", *words, server=server)
    assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
    assert said in done.stderr


def test_describe_lists_services_and_shows_how_to_call(server: str) -> None:
    listed = invoke("describe", server=server)
    assert "streamservice.AdminService" in listed.stdout.splitlines()
    assert (
        "  SubscribeToUpdates(streamservice.SubscribeRequest) -> stream streamservice.Update"
        in listed.stdout.splitlines()
    )
    one = invoke("describe", "streamservice.AdminService", server=server)
    assert "      streamkit call streamservice.AdminService/GetStatus '{}'" in one.stdout
    machine = json.loads(invoke("describe", "-o", "json", server=server).stdout)
    assert {"grpc.health.v1.Health", "streamservice.StreamService"} <= {s["name"] for s in machine}
    missing = invoke("describe", "nothing.Here", server=server)
    assert missing.returncode == 5
    one = invoke("describe", "streamservice.AdminService/ListTables", server=server)
    assert [line for line in one.stdout.splitlines() if line.startswith("  L")]
    assert "GetStatus" not in one.stdout
    for word, meant in (
        ("streamservice.AdminServic", "did you mean streamservice.AdminService?"),
        ("streamservice.AdminService/GetStats", "did you mean GetStatus?"),
    ):
        wrong = invoke("describe", word, server=server)
        assert wrong.returncode == 5 and meant in wrong.stderr
