"""The standard health service: which services take calls now."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable

from streamkit.errors import ConnectError, NotFoundError
from streamkit.generated.grpc.health.v1 import (
    HealthBase,
    HealthCheckRequest,
    HealthCheckResponse,
    HealthCheckResponseServingStatus,
    HealthListRequest,
    HealthListResponse,
)
from streamkit.transport import context

__all__ = ["HealthHandler"]

_Serving = HealthCheckResponseServingStatus


class HealthHandler(HealthBase):
    """Answers for the server as a whole (the empty name) and for each of its services."""

    def __init__(self, services: Iterable[str] = ()) -> None:
        self._serving = dict.fromkeys(("", *services), True)
        self._changed = asyncio.Event()
        self._leaving = False

    def set_serving(self, serving: bool, service: str | None = None) -> None:
        """Say that one service, or without a name all of them, takes calls or does not."""
        names = list(self._serving) if service is None else [service]
        self._serving.update(dict.fromkeys(names, serving))
        # Watchers wait on the event that they took before they looked.
        self._changed.set()
        self._changed = asyncio.Event()

    def leave(self) -> None:
        """Say that nothing takes calls any more; watchers are told that and their calls end."""
        self._leaving = True
        self.set_serving(False)

    async def check(self, health_check_request: HealthCheckRequest) -> HealthCheckResponse:
        service = health_check_request.service
        if service not in self._serving:
            raise NotFoundError(f"no service {service!r} on this server")
        return HealthCheckResponse(self._status(service))

    async def list(self, health_list_request: HealthListRequest) -> HealthListResponse:
        return HealthListResponse(
            {name: HealthCheckResponse(self._status(name)) for name in self._serving}
        )

    async def watch(
        self, health_check_request: HealthCheckRequest
    ) -> AsyncIterator[HealthCheckResponse]:
        """The status now and after every change; changes in quick succession may merge."""
        context().finite = True  # a draining server leaves it the time to tell the last change
        told = None
        while True:
            changed = self._changed
            status = self._status(health_check_request.service)
            if status != told:
                told = status
                yield HealthCheckResponse(status)
            if self._leaving:
                raise ConnectError("the server is going away")
            await changed.wait()

    def _status(self, service: str) -> HealthCheckResponseServingStatus:
        match self._serving.get(service):
            case None:
                return _Serving(_Serving.SERVICE_UNKNOWN)
            case True:
                return _Serving(_Serving.SERVING)
            case False:
                return _Serving(_Serving.NOT_SERVING)
