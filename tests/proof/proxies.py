"""Real proxies in front of a server: their configurations with an idle limit, start, restart."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path

__all__ = ["PROXIES", "Proxy", "find"]

Command = Callable[[str, Path, int, int, int], list[str]]


def _nginx(program: str, folder: Path, port: int, server: int, idle: int) -> list[str]:
    config = folder / "nginx.conf"
    config.write_text(f"""
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
  access_log off; client_body_temp_path {folder}; proxy_temp_path {folder};
  fastcgi_temp_path {folder}; uwsgi_temp_path {folder}; scgi_temp_path {folder};
  server {{
    listen 127.0.0.1:{port} http2;
    client_max_body_size 0; client_body_timeout {idle}s; send_timeout {idle}s;
    location / {{
      grpc_pass grpc://127.0.0.1:{server};
      grpc_read_timeout {idle}s; grpc_send_timeout {idle}s;
    }}
  }}
}}
""")
    return [program, "-c", str(config), "-p", str(folder), "-e", str(folder / "error.log")]


def _haproxy(program: str, folder: Path, port: int, server: int, idle: int) -> list[str]:
    config = folder / "haproxy.cfg"
    config.write_text(f"""
defaults
  mode http
  timeout connect 2s
  timeout client {idle}s
  timeout server {idle}s
frontend front
  bind 127.0.0.1:{port} proto h2
  default_backend back
backend back
  server one 127.0.0.1:{server} proto h2
""")
    return [program, "-db", "-f", str(config)]


def _nghttpx(program: str, folder: Path, port: int, server: int, idle: int) -> list[str]:
    return [
        program,
        f"-f127.0.0.1,{port};no-tls",
        f"-b127.0.0.1,{server};;proto=h2",
        f"--stream-read-timeout={idle}s",
        f"--stream-write-timeout={idle}s",
        f"--backend-read-timeout={idle}s",
        "--workers=1",
        "--single-process",
        f"--errorlog-file={folder}/error.log",
        "--conf=/dev/null",
    ]


def _envoy(program: str, folder: Path, port: int, server: int, idle: int) -> list[str]:
    """With its default route timeout, too, which ends every stream after 15 seconds; queries, which
    cannot be resumed, have to be let off that by whoever sets Envoy up."""
    config = folder / "envoy.yaml"
    config.write_text(f"""
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.\
http_connection_manager.v3.HttpConnectionManager
          stat_prefix: front
          codec_type: HTTP2
          stream_idle_timeout: {idle}s
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {{path: /streamservice.StreamService/StreamQueryResults}}
                route: {{cluster: back, timeout: 0s}}
              - match: {{prefix: "/"}}
                route: {{cluster: back}}
  clusters:
  - name: back
    type: STATIC
    connect_timeout: 2s
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{http2_protocol_options: {{}}}}
    load_assignment:
      cluster_name: back
      endpoints:
      - lb_endpoints:
        - endpoint:
            address: {{socket_address: {{address: 127.0.0.1, port_value: {server}}}}}
""")
    return [program, "-c", str(config), "--concurrency", "1", "-l", "off", "--base-id", str(port)]


PROXIES: dict[str, Command] = {
    "nginx": _nginx,
    "haproxy": _haproxy,
    "nghttpx": _nghttpx,
    "envoy": _envoy,
}


def find(name: str) -> str | None:
    """Where a proxy's program is: a system's package, or for Envoy a wheel."""
    if name == "envoy":
        spec = importlib.util.find_spec("envoy")
        for place in spec.submodule_search_locations or () if spec is not None else ():
            program = Path(place) / "_bin" / "envoy"
            if program.exists():
                return str(program)
    return shutil.which(name) or shutil.which(name, path=f"/usr/sbin{os.pathsep}/usr/local/sbin")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Proxy:
    """One proxy process before one server, on a port that it keeps."""

    def __init__(self, name: str, program: str, folder: Path, server: int, idle: int = 5) -> None:
        self.port = free_port()
        self._log = folder / "output"
        self._command = PROXIES[name](program, folder, self.port, server, idle)
        self._process: asyncio.subprocess.Process | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Run it and wait until it listens."""
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdout=log, stderr=log
            )
        async with asyncio.timeout(20):
            while True:
                try:
                    _, writer = await asyncio.open_connection("127.0.0.1", self.port)
                except OSError:
                    assert self._process.returncode is None, self._log.read_text()[-2000:]
                    await asyncio.sleep(0.02)
                else:
                    writer.close()
                    return

    async def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End it by a signal; by a stronger one if it takes longer than two seconds."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(how)
        try:
            await asyncio.wait_for(process.wait(), 2)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def restart(self, how: signal.Signals) -> None:
        await self.stop(how)
        await self.start()
