"""Figures for Prometheus of several processes that are one server: their sums.

A counter never goes back when one of them dies: what it had counted at the last look is kept.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from streamkit.interceptors.metrics import new_registry

if TYPE_CHECKING:
    from prometheus_client.core import Metric

__all__ = ["Summed", "Tally"]

Tally = list[tuple[str, str, str, list[tuple[str, tuple[tuple[str, str], ...], float]]]]
"""Families: name, type, text, and samples of name, labels and value."""

_ADDED = frozenset(
    [
        "streamkit_catching_up",
        "streamkit_connections",
        "streamkit_queries",
        "streamkit_streams",
        "streamkit_subscribers",
    ]
)
"""Gauges of which each process has a part; the others tell of what they share, or the worst."""
_NOW = frozenset(["streamkit_lag_records", "streamkit_worker_cpu_seconds"])
"""What tells of a process that runs, and of nothing that it did before."""

Key = tuple[str, tuple[tuple[str, str], ...]]


class Summed:
    """A collector. `ask` gives what each process counts now, by a name that no later one has; None
    for one that is there and has not answered. It is called in whichever thread collects, as is
    everything here, one at a time."""

    def __init__(self, ask: Callable[[], Mapping[str, Tally | None]]) -> None:
        self._ask = ask
        self._turn = threading.Lock()
        self._last: dict[str, Tally] = {}
        self._kept: dict[Key, float] = {}
        """Of those that are gone, by the samples of counters and histograms."""
        self.registry = new_registry()
        self.registry.register(self)

    def text(self, accept: str = "") -> tuple[bytes, str]:
        """What a scrape gets, and its content type."""
        from prometheus_client.exposition import choose_encoder

        encode, kind = choose_encoder(accept)
        with self._turn:
            return encode(self.registry), kind

    def collect(self) -> Iterator[Metric]:
        """Every family with its samples."""
        from prometheus_client.core import Metric

        told = self._ask()
        for name in self._last.keys() - told.keys():
            self._keep(self._last.pop(name))
        self._last.update((name, tally) for name, tally in told.items() if tally is not None)
        families: dict[str, tuple[str, str]] = {}
        sums: dict[str, dict[Key, float]] = {}
        for tally in self._last.values():
            for name, kind, text, samples in tally:
                families[name] = (kind, text)
                found = sums.setdefault(name, {})
                largest = kind == "gauge" and name not in _ADDED
                for sample, labels, value in samples:
                    key = (sample, labels)
                    if key not in found:
                        kept = 0.0 if kind == "gauge" else self._kept.get(key, 0.0)
                        found[key] = kept + value
                    elif largest:
                        found[key] = max(found[key], value)
                    else:
                        found[key] += value
        for name, (kind, text) in families.items():
            family = Metric(name, text, kind)
            for (sample, labels), value in self._with_kept(name, kind, sums[name]):
                family.add_sample(sample, dict(labels), value)
            yield family

    def _keep(self, tally: Tally) -> None:
        for name, kind, _, samples in tally:
            if kind != "gauge" and name not in _NOW:
                for sample, labels, value in samples:
                    key = (sample, labels)
                    self._kept[key] = self._kept.get(key, 0.0) + value

    def _with_kept(
        self, name: str, kind: str, found: dict[Key, float]
    ) -> Iterable[tuple[Key, float]]:
        """The samples that live processes have, and those that only dead ones had."""
        if kind == "gauge":
            return found.items()
        mine = {f"{name}{end}" for end in ("", "_total", "_bucket", "_count", "_sum", "_created")}
        gone = {k: v for k, v in self._kept.items() if k[0] in mine and k not in found}
        return sorted((found | gone).items(), key=lambda item: _place(item[0]))


def _place(key: Key) -> tuple[Any, ...]:
    """Buckets by their bounds, all else by its labels."""
    name, labels = key
    others = tuple(pair for pair in labels if pair[0] != "le")
    bound = next((float(value) for label, value in labels if label == "le"), 0.0)
    return others, name, bound
