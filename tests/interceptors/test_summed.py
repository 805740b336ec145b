"""Figures of several processes: sums that never go back."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from streamkit.interceptors.summed import Summed, Tally

Samples = list[tuple[str, tuple[tuple[str, str], ...], float]]
Told = dict[str, Tally | None]


def tally(calls: int, connections: int, lag: int, newest: int) -> Tally:
    method = (("grpc_method", "a.B/C"),)
    seconds = [
        ("seconds_bucket", (*method, ("le", bound)), float(count))
        for bound, count in (("1.0", calls), ("+Inf", calls))
    ]
    lags: Samples = [("streamkit_lag_records_bucket", (("le", "+Inf"),), 1.0)]
    return [
        ("calls", "counter", "Calls.", [("calls_total", method, float(calls))]),
        ("seconds", "histogram", "Time.", [*seconds, ("seconds_sum", method, calls / 2)]),
        ("streamkit_connections", "gauge", "", [("streamkit_connections", (), float(connections))]),
        ("streamkit_lag_records", "histogram", "", lags),
        ("streamkit_lag_records_max", "gauge", "", [("streamkit_lag_records_max", (), float(lag))]),
        ("newest", "gauge", "", [("newest", (("stream", "logs"),), float(newest))]),
    ]


def test_parts_are_added_and_what_is_shared_is_not() -> None:
    told = {"1.0": tally(3, 10, 5, 100), "2.0": tally(4, 20, 2, 99)}
    assert look(Summed(lambda: told)) == {
        ("calls_total", "a.B/C"): 7.0,
        ("seconds_bucket", "a.B/C", "1.0"): 7.0,
        ("seconds_bucket", "a.B/C", "+Inf"): 7.0,
        ("seconds_sum", "a.B/C"): 3.5,
        ("streamkit_connections",): 30.0,
        ("streamkit_lag_records_bucket", "+Inf"): 2.0,
        ("streamkit_lag_records_max",): 5.0,
        ("newest", "logs"): 100.0,
    }


def test_what_a_dead_one_counted_stays_and_what_it_was_does_not() -> None:
    told: Told = {"1.0": tally(3, 10, 5, 100), "2.0": tally(4, 20, 2, 99)}
    summed = Summed(lambda: told)
    look(summed)
    told["2.0"] = None
    assert look(summed)["calls_total", "a.B/C"] == 7.0, "it has only not answered"
    del told["1.0"], told["2.0"]
    assert look(summed) == {}
    told["1.1"] = tally(1, 1, 0, 101)
    found = look(summed)
    assert found["calls_total", "a.B/C"] == 8.0
    assert found["seconds_bucket", "a.B/C", "+Inf"] == 8.0
    assert found["seconds_sum", "a.B/C"] == 4.0
    assert found["streamkit_connections",] == 1.0
    assert found["streamkit_lag_records_bucket", "+Inf"] == 1.0
    told["1.1"] = tally(5, 1, 0, 101)
    assert look(summed)["calls_total", "a.B/C"] == 12.0


def look(summed: Summed) -> dict[tuple[str, ...], float]:
    """What a scrape shows of these families, by name and the values of labels."""
    text = summed.text()[0].decode()
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if not sample.name.startswith(("process_", "python_"))
    }
