"""The streams inside an application of FastAPI's: events and gRPC-Web below /streams.

uvicorn fastapi_app:app      and  curl -N 'localhost:8000/streams/v1/updates?all=1'
"""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, HTTPException
from fastapi.responses import HTMLResponse

import streamkit
from streamkit import asgi

# gRPC has a port of its own beside the application's; the handlers below write through it.
server = streamkit.Server(journal=os.environ.get("STORE", "events.db"), port=0)
streams = asgi.app(server)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    async with streams.lifespan(app), streamkit.AsyncClient(server.address) as client:
        app.state.client = client
        yield


app = FastAPI(lifespan=lifespan)
app.mount("/streams", streams)


@app.post("/orders/{region}")
async def order(region: str, text: str) -> dict[str, int]:
    try:
        return {"number": await app.state.client.publish(f"orders.{region}", text)}
    except streamkit.InvalidArgumentError as error:
        raise HTTPException(400, str(error)) from None


@app.get("/", response_class=HTMLResponse)
async def page() -> str:
    return """<!doctype html><title>Orders</title><ul></ul><script>
    new EventSource("/streams/v1/updates?topic=orders.*&last=20").onmessage = (event) => {
      const item = document.createElement("li");
      item.textContent = JSON.parse(event.data).message;
      document.querySelector("ul").prepend(item);
    };</script>"""
