"""Triton's dynamic batching on traces made by hand, to the microsecond."""

import json

import pytest

from tests.simulate.fleets import Ran, model, on, point, run, workload

ALPHA, BETA = 0.010, 0.002
POINTS = tuple(point(b, b / (ALPHA + BETA * b), ALPHA + BETA * b) for b in (1, 4, 8))
"""An execution of b requests takes 10 ms + b x 2 ms."""


def latencies(ran: Ran, which: int = 0) -> list[float]:
    """Of all answers, as the counters hold them: to 1.2 %."""
    return [1e-4 * 10 ** ((place + 0.5) / 200) for place, count in enumerate(ran.counters[which].buckets) for _ in range(count)]


def config(**batching: object) -> str:
    return json.dumps({"max_batch_size": 8, "dynamic_batching": batching})


def asked(at: list[float], which: int = 0) -> list[tuple[float, int, float, float]]:
    return [(seconds, which, 0.0, 1.0) for seconds in at]


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        pytest.param([0.0], [0.012], id="one alone goes at once"),
        pytest.param([0.0, 0.001, 0.002], [0.012, 0.026 - 0.002, 0.026 - 0.001], id="two wait for the first, then go together"),
        pytest.param([0.0, *[0.001] * 9], [0.012, *[0.037] * 8, 0.049], id="nine wait: eight go, then one"),
        pytest.param([0.0, 0.012], [0.012, 0.012], id="one that comes as the first ends"),
    ],
)
def test_what_waits_goes_together_as_soon_as_the_instance_is_free(arrivals: list[float], expected: list[float]) -> None:
    m = model("a", *POINTS, config=config())
    ran = run([m], workload([m], asked(arrivals)), on("a", 0), end=60)
    assert latencies(ran) == pytest.approx(sorted(expected), rel=0.012)


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        pytest.param([0.0], [0.050 + 0.012], id="one alone waits for the delay"),
        pytest.param([0.0, 0.020], [0.030 + 0.014, 0.050 + 0.014], id="a second within the delay joins"),
        pytest.param([0.0, 0.051], [0.062, 0.062], id="a second after it waits for its own"),
        pytest.param([0.001 * n for n in range(8)], [0.026 + 0.001 * n for n in range(8)], id="a full batch waits no longer"),
    ],
)
def test_a_batch_waits_to_fill_for_max_queue_delay(arrivals: list[float], expected: list[float]) -> None:
    m = model("a", *POINTS, config=config(max_queue_delay_microseconds=50000))
    ran = run([m], workload([m], asked(arrivals)), on("a", 0), end=60)
    assert latencies(ran) == pytest.approx(sorted(expected), rel=0.012)


def test_a_full_queue_refuses() -> None:
    m = model("a", *POINTS, config=config(default_queue_policy={"max_queue_size": 2}))
    ran = run([m], workload([m], asked([0.0, 0.001, 0.002, 0.003])), on("a", 0), end=60)
    assert ran.counters[0].refused == 1
    assert len(latencies(ran)) == 3


def test_what_waited_too_long_leaves_the_queue() -> None:
    rules = {"default_timeout_microseconds": "5000", "timeout_action": "REJECT"}
    m = model("a", *POINTS, config=config(default_queue_policy=rules))
    ran = run([m], workload([m], asked([0.0, 0.001, 0.010])), on("a", 0), end=60)
    assert ran.counters[0].refused == 1
    assert latencies(ran) == pytest.approx([0.012, 0.014], rel=0.012)


def test_two_models_that_execute_at_a_time_take_twice_as_long() -> None:
    a, b = (model(name, *POINTS, config=config()) for name in "ab")
    ran = run([a, b], workload([a, b], [*asked([0.0], 0), *asked([0.0], 1)]), {**on("a", 0), **on("b", 0)}, end=60)
    assert latencies(ran, 0) == pytest.approx([0.024], rel=0.012)
    assert latencies(ran, 1) == pytest.approx([0.024], rel=0.012)


def test_generations_that_fit_one_server_together_do_not_slow_each_other() -> None:
    """Each wants an eighth of its largest rate: two make a quarter of the server."""
    a, b = (model(name, point(8, 80.0, 0.1, tokens=True)) for name in "ab")
    rows = [(0.0, 0, 0.0, 100.0), (0.0, 1, 0.0, 100.0)]
    ran = run([a, b], workload([a, b], rows), {**on("a", 0), **on("b", 0)}, end=60)
    assert ran.run.model_joules == pytest.approx([10.0 * (60 - 10) / 8] * 2)  # 100 tokens at 10 a second, at an eighth of 50 W


def test_a_request_without_a_replica_is_refused_and_is_a_miss() -> None:
    m = model("a", *POINTS)
    ran = run([m], workload([m], asked([0.0, 1.0])), {}, end=60)
    assert ran.counters[0].refused == 2
    assert sum(ran.counters[0].within) == 0


def test_a_sleeping_model_holds_its_requests_until_it_is_awake() -> None:
    from tests.simulate.fleets import Scripted, pool

    m = model("a", *POINTS, least=0)
    woken = Scripted(on("b", 0), [(5.0, {**on("b", 0), **on("a", 0)})])
    other = model("b", *POINTS)
    ran = run([m, other], workload([m, other], asked([4.0])), woken, end=120, pools=[pool()])
    size = 2**30
    assert latencies(ran) == pytest.approx([1.0 + size / 1e9 + 2.0 + size / 1e9 + 0.012], rel=0.012)
