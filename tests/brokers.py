"""NATS servers from a wheel, on free ports."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Broker", "Brokers", "running_brokers"]

_PATIENCE = 20.0


class Broker:
    """One server. Its files are in `folder`."""

    def __init__(self, folder: Path, name: str, port: int, monitor: int, settings: str) -> None:
        self.folder = folder
        self.name = name
        self.port = port
        self.monitor = monitor
        self._configuration = folder / "nats.conf"
        folder.mkdir(exist_ok=True)
        self._configuration.write_text(
            f'server_name: "{name}"\nlisten: "127.0.0.1:{port}"\nhttp: "127.0.0.1:{monitor}"\n'
            f"{settings}\n"
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = Path(sys.executable).with_name("nats-server")
        with open(self.folder / "log", "ab") as log:
            self._process = subprocess.Popen(
                [str(binary), "-c", str(self._configuration)], stdout=log, stderr=log
            )
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 0.2).close()
                return
            except OSError:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise AssertionError((self.folder / "log").read_text()) from None
                time.sleep(0.02)

    def stop(self) -> None:
        """As when the machine hangs: connections stay, and nothing is done until `go_on`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As when the machine goes."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class Brokers:
    """Servers that are one cluster, or one alone."""

    def __init__(self, servers: list[Broker]) -> None:
        self.servers = servers

    def url(self, name: str, options: str = "") -> str:
        hosts = ",".join(f"127.0.0.1:{server.port}" for server in self.servers)
        monitor = self.servers[0].monitor
        return f"nats://{hosts}/{name}?monitor={monitor}{options}"


@contextmanager
def running_brokers(
    count: int = 1,
    *,
    sync: str = "sync_interval: always",
    payload: str = "max_payload: 8MB",
    jetstream: bool = True,
) -> Iterator[Brokers]:
    """Start servers below the temporary folder, stop them and remove what they left."""
    folder = Path(tempfile.mkdtemp(prefix="streamkit-nats-"))
    ports = _free_ports(3 * count)
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports[2::3])
    servers = []
    for n in range(count):
        port, monitor, route = ports[3 * n : 3 * n + 3]
        store = folder / f"n{n}" / "store"
        settings = payload
        if jetstream:
            settings += f'\njetstream {{\n  store_dir: "{store}"\n  {sync}\n}}'
        if count > 1:
            settings += (
                f'\ncluster {{\n  name: "test"\n  listen: "127.0.0.1:{route}"\n'
                f"  routes: [{routes}]\n}}"
            )
        servers.append(Broker(folder / f"n{n}", f"n{n}", port, monitor, settings))
    try:
        for server in servers:
            server.start()
        yield Brokers(servers)
    finally:
        for server in servers:
            server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
