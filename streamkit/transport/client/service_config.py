"""gRPC's service config: deadlines and retries, by method.

The keys and their meaning are gRPC's (https://github.com/grpc/grpc/blob/master/doc/service_config.md
and the proposal A6). What is not served here is refused by name, so that nobody counts on it.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamkit.errors import InvalidArgumentError, Status, StreamkitError, internal

__all__ = ["MethodConfig", "Retrying", "ServiceConfig"]

MOST_ATTEMPTS = 5
"""Of one call, whatever a config says."""
_JITTER = 0.2
_DURATION = re.compile(r"(\d{1,12})(\.\d{1,9})?s")
_PUSH_BACK = re.compile(r"[0-9]{1,9}")  # as long as an int32, and no number that int() refuses
_TOP = {"methodConfig", "retryThrottling", "loadBalancingConfig", "loadBalancingPolicy"}
_METHOD = {"name", "timeout", "retryPolicy", "waitForReady"}
_RETRY = {
    "maxAttempts",
    "initialBackoff",
    "maxBackoff",
    "backoffMultiplier",
    "retryableStatusCodes",
}


@dataclass(frozen=True, slots=True)
class _Policy:
    attempts: int
    first: float
    most: float
    factor: float
    statuses: frozenset[Status]


class _Throttle:
    """Tokens of a channel: failures take one, successes give a part of one back; without more than
    half of them nothing is tried again."""

    def __init__(self, most: float, ratio: float) -> None:
        self._most = self._tokens = most
        self._ratio = ratio

    def failed(self) -> bool:
        """Whether a failed call may be tried again."""
        self._tokens = max(0.0, self._tokens - 1)
        return self._tokens > self._most / 2

    def succeeded(self) -> None:
        self._tokens = min(self._most, self._tokens + self._ratio)


class Retrying:
    """One call that may be tried again until its response begins."""

    __slots__ = ("_chance", "_failures", "_policy", "_throttle", "attempts")

    def __init__(
        self,
        policy: _Policy,
        throttle: _Throttle | None,
        chance: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._policy = policy
        self._throttle = throttle
        self._chance = chance
        self._failures = 0  # since the server has last named a delay
        self.attempts = 0
        """How often the call was tried before."""

    def delay(self, error: StreamkitError, push_back: str | None) -> float | None:
        """Return after how many seconds a failed call is to be tried again, or None.

        `push_back` is what the server says about it: milliseconds, or anything else for never.
        """
        policy, throttle = self._policy, self._throttle
        if error.status not in policy.statuses:
            return None
        if throttle is not None and not throttle.failed():
            return None
        self.attempts += 1
        if self.attempts >= policy.attempts:
            return None
        if push_back is not None:
            self._failures = 0
            return int(push_back) / 1000 if _PUSH_BACK.fullmatch(push_back) else None
        delay = min(policy.most, policy.first * policy.factor**self._failures)
        self._failures += 1
        return delay * self._chance(1 - _JITTER, 1 + _JITTER)

    def succeeded(self) -> None:
        """The call has ended well."""
        if self._throttle is not None:
            self._throttle.succeeded()


@dataclass(frozen=True, slots=True)
class MethodConfig:
    """What holds for one method."""

    timeout: float | None = None
    policy: _Policy | None = None


_NOTHING = MethodConfig()


@dataclass(slots=True)
class ServiceConfig:
    """What holds for the methods of a channel."""

    methods: dict[str, MethodConfig] = field(default_factory=dict)
    """By /service/method, /service/ and "" for all others."""
    throttle: _Throttle | None = None

    @classmethod
    def parse(cls, config: str | Mapping[str, Any] | None) -> ServiceConfig:
        """Read a config: JSON, or what JSON becomes. InvalidArgumentError names what is wrong."""
        if config is None:
            return cls()
        try:
            value = json.loads(config) if isinstance(config, str) else config
        except ValueError as error:
            raise _wrong("", f"is no JSON: {error}") from None
        top = _object(value, "", _TOP)
        found = cls()
        for index, item in enumerate(_list(top.get("methodConfig", []), "methodConfig")):
            found._add(item, f"methodConfig[{index}]")
        throttling = top.get("retryThrottling")
        if throttling is not None:
            where = "retryThrottling"
            _object(throttling, where, {"maxTokens", "tokenRatio"})
            most = _number(throttling.get("maxTokens"), f"{where}.maxTokens")
            if most > 1000:
                raise _wrong(f"{where}.maxTokens", "is over 1000")
            ratio = _number(throttling.get("tokenRatio"), f"{where}.tokenRatio")
            found.throttle = _Throttle(most, ratio)
        return found

    def of(self, path: str) -> MethodConfig:
        """Return what holds for /service/method."""
        methods = self.methods
        if not methods:
            return _NOTHING
        service = path[: path.rfind("/") + 1]
        return methods.get(path) or methods.get(service) or methods.get("") or _NOTHING

    def retrying(self, method: MethodConfig) -> Retrying | None:
        """Return the state of one call of a method that may be tried again, else None."""
        return None if method.policy is None else Retrying(method.policy, self.throttle)

    def _add(self, value: Any, where: str) -> None:
        item = _object(value, where, _METHOD)
        timeout = item.get("timeout")
        if item.get("waitForReady"):
            raise _wrong(f"{where}.waitForReady", "is not supported")
        policy = item.get("retryPolicy")
        config = MethodConfig(
            None if timeout is None else _duration(timeout, f"{where}.timeout"),
            None if policy is None else _policy(policy, f"{where}.retryPolicy"),
        )
        for index, name in enumerate(_list(item.get("name"), f"{where}.name")):
            place = f"{where}.name[{index}]"
            _object(name, place, {"service", "method"})
            service, method = name.get("service") or "", name.get("method") or ""
            if method and not service:
                raise _wrong(place, "has a method without a service")
            key = f"/{service}/{method}" if service else ""
            if key in self.methods:
                raise _wrong(place, "was there before")
            self.methods[key] = config


def _policy(value: Any, where: str) -> _Policy:
    item = _object(value, where, _RETRY)
    attempts = item.get("maxAttempts")
    if not isinstance(attempts, int) or isinstance(attempts, bool) or attempts < 2:
        raise _wrong(f"{where}.maxAttempts", "is not a whole number from 2 on")
    statuses: set[Status] = set()
    for code in _list(item.get("retryableStatusCodes"), f"{where}.retryableStatusCodes"):
        try:
            statuses.add(Status(code) if isinstance(code, int) else Status[str(code).upper()])
        except (KeyError, ValueError):
            raise _wrong(f"{where}.retryableStatusCodes", f"has no status {code!r}") from None
    if not statuses or Status.OK in statuses:
        raise _wrong(f"{where}.retryableStatusCodes", "names no failures")
    return _Policy(
        min(attempts, MOST_ATTEMPTS),
        _duration(item.get("initialBackoff"), f"{where}.initialBackoff"),
        _duration(item.get("maxBackoff"), f"{where}.maxBackoff"),
        _number(item.get("backoffMultiplier"), f"{where}.backoffMultiplier"),
        frozenset(statuses),
    )


def _wrong(where: str, what: str) -> InvalidArgumentError:
    return internal(InvalidArgumentError(f"service config: {where} {what}".replace(":  ", ": ")))


def _object(value: Any, where: str, keys: set[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _wrong(where, "is not an object")
    for key in value:
        if key not in keys:
            raise _wrong(f"{where}.{key}".lstrip("."), "is not known, or not supported")
    return value


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list | tuple):
        raise _wrong(where, "is not a list")
    return list(value)


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise _wrong(where, "is not a number above 0")
    return float(value)


def _duration(value: Any, where: str) -> float:
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    seconds = float(match[0][:-1]) if match else 0.0
    if seconds <= 0:
        raise _wrong(where, 'is not a duration like "1.5s"')
    return seconds
