"""TLS contexts for both sides: HTTP/2 by ALPN, TLS 1.2 or newer, files reloaded when they change.

Both helpers return an `ssl.SSLContext`, so they fit wherever one is taken. The context looks at its
files before every handshake: a renewed certificate or authority serves the next connection, without
a restart and without touching the connections that are open. Files that do not load (half written,
key and certificate of two generations) are reported once and the former ones stay in use.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from streamkit.errors import ConnectError, PreconditionError

__all__ = ["alpn_is_h2", "client_tls", "require_h2", "server_tls"]

log = logging.getLogger(__name__)

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""The suites of TLS 1.2 that HTTP/2 allows: forward secrecy and an AEAD."""

_Path = str | os.PathLike[str]


def server_tls(cert: _Path, key: _Path, client_ca: _Path | None = None) -> ssl.SSLContext:
    """Return the context of a server.

    `cert` and `key` are PEM files, `cert` with its chain. With `client_ca` (PEM) every client must
    present a certificate that it has signed: mutual TLS. Raises PreconditionError when a file is
    missing or does not fit.
    """

    def build() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _harden(context)
        context.load_cert_chain(cert, key)
        if client_ca is not None:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    return _ReloadingContext.create(ssl.PROTOCOL_TLS_SERVER, build, cert, key, client_ca)


def client_tls(
    ca: _Path | None = None, cert: _Path | None = None, key: _Path | None = None
) -> ssl.SSLContext:
    """Return the context of a client.

    `ca` (PEM) replaces the system's authorities; `cert` and `key` are presented to a server that
    asks for them. The name of the server is always checked. Raises PreconditionError when a file is
    missing or does not fit, or when only one of `cert` and `key` is given.
    """
    if (cert is None) != (key is None):
        raise PreconditionError("a client certificate needs both its file and its key")

    def build() -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca)
        _harden(context)
        if cert is not None:
            context.load_cert_chain(cert, key)
        return context

    return _ReloadingContext.create(ssl.PROTOCOL_TLS_CLIENT, build, cert, key, ca)


def alpn_is_h2(transport: asyncio.BaseTransport) -> bool:
    """Whether a connection is plain text, or its TLS handshake agreed on HTTP/2."""
    tls = transport.get_extra_info("ssl_object")
    return tls is None or tls.selected_alpn_protocol() == "h2"


def require_h2(transport: asyncio.BaseTransport) -> None:
    """Raise ConnectError when the peer did not agree on HTTP/2 in the TLS handshake."""
    if not alpn_is_h2(transport):
        raise ConnectError(
            "the server does not speak HTTP/2 over TLS",
            hint="this port serves something else than gRPC, or a proxy hides it",
        )


def _harden(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["h2"])
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


class _ReloadingContext(ssl.SSLContext):
    """A context that hands every handshake to the newest context its files make.

    A context cannot forget an authority it has loaded, so a change builds a new one instead of
    loading into the old. Event loops only ever ask a context for its `wrap_bio`.
    """

    _build: Callable[[], ssl.SSLContext]
    _files: tuple[Path, ...]
    _stamp: tuple[tuple[int, int, int], ...]
    _current: ssl.SSLContext
    _alpn: list[str] | None = None

    @classmethod
    def create(
        cls, protocol: int, build: Callable[[], ssl.SSLContext], *files: _Path | None
    ) -> _ReloadingContext:
        self = cls(protocol)
        self._build = build
        self._files = tuple(Path(file) for file in files if file is not None)
        try:
            self._stamp = self._read_stamp()
            self._current = build()
        except OSError as error:  # ssl.SSLError is one
            names = ", ".join(str(file) for file in self._files)
            raise PreconditionError(
                f"cannot load the certificate files {names}: {_reason(error)}"
            ) from error
        # What event loops and users read off the outer context is what the inner one says.
        self.check_hostname = False
        self.verify_mode = self._current.verify_mode
        self.check_hostname = self._current.check_hostname
        return self

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        self._alpn = list(alpn_protocols)
        self._current.set_alpn_protocols(self._alpn)

    def wrap_bio(self, *args: Any, **kwargs: Any) -> ssl.SSLObject:
        self._refresh()
        return self._current.wrap_bio(*args, **kwargs)

    def wrap_socket(self, *args: Any, **kwargs: Any) -> ssl.SSLSocket:
        self._refresh()
        return self._current.wrap_socket(*args, **kwargs)

    def _refresh(self) -> None:
        stamp = self._read_stamp()
        if stamp == self._stamp:
            return
        self._stamp = stamp  # before building: files that do not load are reported once
        try:
            self._current = self._build()
            if self._alpn is not None:
                self._current.set_alpn_protocols(self._alpn)
        except OSError as error:
            log.warning("keeping the former certificate files: %s", _reason(error))

    def _read_stamp(self) -> tuple[tuple[int, int, int], ...]:
        # The inode as well: a rename can bring a file of the same size and an older time.
        try:
            stats = [file.stat() for file in self._files]
        except OSError:
            return ()  # one is missing, at least for now
        return tuple((stat.st_mtime_ns, stat.st_size, stat.st_ino) for stat in stats)


def _reason(error: OSError) -> str:
    return error.strerror or str(error)
