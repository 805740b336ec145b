"""Mutual TLS: the name in a client's certificate decides what it may do.

python mutual_tls.py CA.pem SERVER.pem SERVER.key CLIENT.pem CLIENT.key NAME
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import streamkit

ROLES = """
[role.till]
publish = ["orders.*"]

[[certificate]]
san = "{name}"
roles = ["till"]
"""


async def main(ca: str, cert: str, key: str, client_cert: str, client_key: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        access = Path(folder, "access.toml")
        access.touch(mode=0o600)
        access.write_text(ROLES.format(name=name))
        server = streamkit.Server(
            journal=":memory:",
            port=0,
            ssl=streamkit.server_tls(cert, key, client_ca=ca),
            access=access,
        )
        trust = streamkit.client_tls(ca, client_cert, client_key)
        async with server:
            address = f"localhost:{server.port}"
            async with streamkit.AsyncClient(address, ssl=trust) as client:
                print("stored as", await client.publish("orders.eu", "17"))
                try:
                    await client.publish("prices.eu", "4")
                except streamkit.AuthError as error:
                    print(error)


asyncio.run(main(*sys.argv[1:]))
