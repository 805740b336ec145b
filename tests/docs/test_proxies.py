"""The configurations of docs/proxies.md, as they stand there: a stream goes through each."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

import streamkit
from streamkit.testing import expect
from tests.docs.pages import DOCS, blocks
from tests.proof.proxies import find, free_port

PAGE = {block.file: block.text for block in blocks(DOCS / "proxies.md") if block.file}
COMMANDS = {
    "nginx.conf": ["nginx", "-c", "{file}", "-p", "{folder}", "-e", "stderr", "-g", "{more}"],
    "haproxy.cfg": ["haproxy", "-db", "-f", "{file}"],
    "envoy.yaml": ["envoy", "-c", "{file}", "--concurrency", "1", "-l", "error"],
}


def test_each_file_of_the_page_is_run_here() -> None:
    assert set(PAGE) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
async def test_a_stream_goes_through(name: str, tmp_path: Path) -> None:
    program = find(COMMANDS[name][0])
    if program is None:
        pytest.skip(f"{COMMANDS[name][0]} is not installed")
    async with streamkit.Server(journal=":memory:", port=0, web=True) as server:
        port = free_port()
        config = tmp_path / name
        text = PAGE[name].replace("50051", str(server.port)).replace("8080", str(port))
        text = text.replace("0.0.0.0", "127.0.0.1").replace(
            f"bind :{port}", f"bind 127.0.0.1:{port}"
        )
        text = text.replace(f"listen {port}", f"listen 127.0.0.1:{port}")
        text = text.replace("http2 on;", "http2 on; access_log off;")
        config.write_text(_known_to(program, text))
        words = {"file": config, "folder": tmp_path, "more": f"daemon off; pid {tmp_path}/pid;"}
        process = await asyncio.create_subprocess_exec(
            program, *(word.format_map(words) for word in COMMANDS[name][1:]),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            await _through(f"127.0.0.1:{port}", process)
        finally:
            if process.returncode is None:
                process.terminate()
            await process.communicate()


async def _through(address: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(20):
        while True:
            try:
                _, writer = await asyncio.open_connection(*address.split(":"))
            except OSError:
                if process.returncode is not None:
                    assert process.stderr is not None
                    pytest.fail((await process.stderr.read()).decode())
                await asyncio.sleep(0.02)
            else:
                writer.close()
                break
    async with (
        streamkit.AsyncClient(address) as client,
        client.subscribe("orders.*") as updates,
    ):
        for number in (1, 2):
            await client.publish("orders.eu", str(number))
            [update] = await expect(updates, 1, within=10)
            assert update.message == str(number)


def _known_to(program: str, text: str) -> str:
    """nginx before 1.25 says `listen ... http2` for what the page says as later ones do."""
    import subprocess

    if not program.endswith("nginx"):
        return text
    said = subprocess.run([program, "-v"], capture_output=True, text=True, check=True).stderr
    version = tuple(int(part) for part in said.split("/")[1].split()[0].split("."))
    if version >= (1, 25, 1):
        return text
    lines = text.replace("http2 on;", "").splitlines()
    return "\n".join(
        line.replace(";", " http2;") if line.strip().startswith("listen") else line
        for line in lines
    )
