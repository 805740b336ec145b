"""A secret is in its file and in the memory of who uses it, and is shown nowhere."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from streamkit.access.file import add_token, read_rules, remove_token
from streamkit.client import AsyncClient
from streamkit.errors import StreamkitError
from tests.cli.tools import COMMAND, ServerProcess, environment, invoke, wait_for

PASSWORD = "a-word-that-nobody-sees"


def seen_of(process: subprocess.Popen[str]) -> str:
    """What others can see of a process: its command line, and the list of processes."""
    listed = subprocess.run(["ps", "axww", "-o", "args"], capture_output=True, text=True).stdout
    seen = [
        Path(f"/proc/{process.pid}/{name}").read_text() for name in ("cmdline", "comm", "status")
    ]
    return "\n".join([*seen, listed])


def test_no_secret_is_shown_anywhere(tmp_path: Path) -> None:
    file, kept = tmp_path / "access.toml", tmp_path / "token"
    secret = add_token(file, "ops", ["reader", "writer"])
    late = add_token(file, "late", ["reader"], expires=time.time() - 1)
    wrong = secret[:-4] + "XXXX"
    kept.write_text(secret)
    digests = [token.sha256 for token in read_rules(file).tokens.values()]
    shown: list[str] = []
    server = ServerProcess(tmp_path / "x.db", "--access", str(file), "--access-log", "-", "--debug")
    try:
        following = subprocess.Popen(
            [*COMMAND, "logs", "-f", "--token-file", str(kept), "-s", server.address],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
        )
        # As processes of their own: `invoke` has no room for tracebacks.
        debugging = [
            subprocess.Popen(
                [*COMMAND, "cancel", "none", "-s", server.address, "--debug"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(STREAMKIT_TOKEN=token),
            )
            for token in (secret, wrong, late)
        ]
        for token in (secret, wrong, late):
            for command in (
                "status",
                "publish orders x",
                "query nonsense",
                "logs",
                "watch-job none --wait 0s",
                "cancel none",
            ):
                env = {"STREAMKIT_TOKEN": token}
                done = invoke(*command.split(), server=server.address, env=env)
                shown += [done.stdout, done.stderr]
                assert token == secret or done.returncode == 4
        for process in debugging:
            out, err = process.communicate(timeout=60)
            assert "Traceback" in err
            shown += [out, err]
        url = f"postgresql://me:{PASSWORD}@127.0.0.1:1/x"
        options = tmp_path / "streamkit.toml"
        options.write_text(f'[serve]\naccess = "{file}"\ndatabase.shop = {{ env = "SHOP_URL" }}\n')
        for command in ("config show", "config check", "doctor"):
            arguments = [*command.split(), "--config", str(options)]
            env = {"SHOP_URL": url, "STREAMKIT_TOKEN": secret}
            done = invoke(*arguments, server=server.address, env=env)
            shown += [done.stdout, done.stderr]
            assert done.returncode == 0, done.stderr
        far = invoke("status", "-s", "192.0.2.1:1", env={"STREAMKIT_TOKEN": secret})
        assert far.returncode == 1 and "without TLS" in far.stderr
        shown += [far.stderr, far.stdout, seen_of(server.process), seen_of(following)]
        remove_token(file, "ops")
        out, err = following.communicate(timeout=20)
        shown += [out, err]
        assert "withdrawn" in err
        file.write_text(file.read_text() + "[broken")
        wait_for(lambda: any("keeping the former rules" in line for line in server.greeting))
    finally:
        server.stop()
    shown += server.greeting
    text = "\n".join(shown)
    # The log is among what was looked at.
    assert '"identity": "token:ops"' in text and '"reason": "revoked"' in text
    assert "SHOP_URL" in text and PASSWORD not in text
    for hidden in (secret, wrong, late, *digests):
        assert hidden not in text
        assert hidden.split("_", 2)[-1] not in text


async def test_no_secret_is_in_an_error_or_its_traceback(tmp_path: Path) -> None:
    import traceback

    from tests.access.servers import serve

    file = tmp_path / "access.toml"
    secret = add_token(file, "ops", [])
    async with (
        serve(access=file) as address,
        AsyncClient(address, token=secret, reconnect=False) as client,
    ):
        for attempt in (client.jobs(), client.publish("x", "y"), client.cancel_job("x")):
            with pytest.raises(StreamkitError) as caught:
                await attempt
            text = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
            assert secret not in text and secret[-43:] not in text
