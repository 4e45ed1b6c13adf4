"""What clients of the gateway notice when the operator, a Triton or a gateway dies: what failed, and how long others waited.

Real Triton, two gateways behind their Service, requests at a steady rate: a route whose small model answers, the same route where
every request escalates, a model by its own name, over HTTP and gRPC. `operator`: killed for two minutes; meanwhile a model that
sleeps is asked with short and with long deadlines. `server`: one of two Tritons that hold a model is killed. `gateways`: one of
two is killed while it holds requests for a model that wakes slowly, then one is stopped under traffic, as a rollout does.
"""

import argparse
import os
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.engine.gateway import asleep, kill, pods
from tests.engine.world import Object, World, model, triton_pids, until, write_model
from tests.gateway.world import SCORED, SCORED_CONFIG, Answer, Inside, request, route, scored

from bench.common import Report, parser, percentile, say
from bench.gateway.world import measured

PARTS = ("operator", "server", "gateways")
GATEWAY = "http://ergon-gateway.ergon-system:8000"
GRPC = "ergon-gateway.ergon-system:8001"
SHORT_SECONDS, LONG_SECONDS, LONG_BEFORE_SECONDS = 5.0, 110.0, 45.0
"""Deadlines of requests to the model that sleeps: one that ends while the operator is away, and one that outlives that, asked so
long before the operator is back (the client itself waits for 120 s at most)."""
SHORT_EVERY_SECONDS = 15.0
LATE_SECONDS = 0.5
"""An answer may come so much after its deadline before it counts as late: the client's own time on a busy machine."""
SLOW_LOAD_SECONDS = 8
HELD = 40


@dataclass(frozen=True)
class Sent:
    """One request: to what, when (monotonic seconds), and the number to wait for its answer with."""

    what: str
    at: float
    number: int


class Traffic:
    """Requests at a steady rate to several targets in turn, until stopped."""

    def __init__(self, inside: Inside, namespace: str, names: tuple[str, ...], per_second: float) -> None:
        self._inside, self._namespace, self._names, self._pause = inside, namespace, names, 1 / per_second
        self._done = threading.Event()
        self._sent: list[Sent] = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> list[tuple[Sent, Answer]]:
        """Everything that was asked, with its answers."""
        self._done.set()
        self._thread.join()
        return [(sent, self._inside.answer(sent.number, 90)) for sent in self._sent]

    def _run(self) -> None:
        due, count = time.monotonic(), 0
        while not self._done.wait(max(0.0, due - time.monotonic())):
            name = self._names[count % len(self._names)]
            self._sent.append(Sent(name, time.monotonic(), ask(self._inside, self._namespace, name)))
            due, count = due + self._pause, count + 1


def ask(inside: Inside, namespace: str, name: str) -> int:
    """One request of a kind."""
    match name:
        case "route":
            return inside.begin(f"{GATEWAY}/{namespace}/guess/v2/models/any/infer", request("x"))
        case "route that escalates":
            return inside.begin(f"{GATEWAY}/{namespace}/guess/v2/models/any/infer", request("small=0.1"))
        case "route, gRPC":
            return inside.begin_grpc(GRPC, f"{namespace}/guess", "x")
        case "model's own name":
            return inside.begin(f"{GATEWAY}/v2/models/{namespace}.big/infer", request("x"))
        case "model's own name, gRPC":
            return inside.begin_grpc(GRPC, f"{namespace}.big", "x")
    raise AssertionError(name)


KINDS = ("route", "route that escalates", "route, gRPC", "model's own name", "model's own name, gRPC")


def good(answer: Answer) -> bool:
    """Whether a request was answered."""
    return answer.status in (200, "OK")


def judge(report: Report, when: str, answers: list[tuple[Sent, Answer]], bar: float | None = 0) -> None:
    """Failures by kind, and the longest that a good answer took."""
    for name in KINDS:
        mine = [answer for sent, answer in answers if sent.what == name]
        if not mine:
            continue
        failed = [answer for answer in mine if not good(answer)]
        title = f"{when}, {name}: failed of {len(mine)}"
        if bar is None:
            report.figure(title, len(failed), "")
        else:
            report.bar(title, len(failed), bar, "")
        for (status, text), count in Counter((str(a.status), a.body[:160].decode(errors="replace")) for a in failed).most_common(
            3
        ):
            report.note(f"{title}: {count} x {status} {text}")
    took = [answer.seconds for _, answer in answers if good(answer)]
    report.figure(f"{when}: p50", 1000 * percentile(took, 0.5), "ms")
    report.figure(f"{when}: p99", 1000 * percentile(took, 0.99), "ms")
    report.figure(f"{when}: longest", max(took), "s")


@contextmanager
def routed(at: World) -> Iterator[str]:
    """A route over a small and a big model, the big one on both servers."""
    with at.namespace() as namespace:
        at.apply(
            scored(at, namespace, "small", 0.7, replicas=2),
            scored(at, namespace, "big", 0.9, replicas=2),
            route(namespace, "guess", timeout="20s"),
        )
        for name in ("small", "big"):
            at.ready(namespace, name, 120)
            until(lambda of=name: len(at.endpoints(namespace, of)) == 2, f"{name} on two servers", 60)  # type: ignore[misc]
        yield namespace


def steady(inside: Inside, namespace: str, per_second: float, kinds: tuple[str, ...] = KINDS) -> Traffic:
    """Traffic, once every kind is answered."""
    for name in kinds:
        until(lambda of=name: good(inside.answer(ask(inside, namespace, of))), f"an answer to a {name}", 60)  # type: ignore[misc]
    return Traffic(inside, namespace, kinds, per_second)


def sleeper(at: World, namespace: str, name: str, load_seconds: float = 0.0) -> Object:
    """A model that sleeps when nobody asks for 5 s, and takes so long to load."""
    code = SCORED.replace("NAME", name)
    if load_seconds:
        code += f"\n    def initialize(self, args):\n        time.sleep({load_seconds:g})\n"
    uri = write_model(at.cluster.models, f"{namespace}-{name}", code, config=SCORED_CONFIG)
    return model(namespace, name, uri, autoscaling={"minReplicas": 0, "idleAfter": "5s"}, task="sleep")


def ask_sleeper(inside: Inside, namespace: str, name: str, seconds: float) -> int:
    """A request through the model's own Service, which leads to a gateway while it sleeps."""
    url = f"http://{name}.{namespace}:8000/v2/models/{namespace}.{name}/infer"
    return inside.begin(url, request("x"), ergon_timeout=f"{seconds:g}s", connection="close")


def without_operator(at: World, inside: Inside, arguments: argparse.Namespace, report: Report) -> None:
    """The operator killed under traffic."""
    with routed(at) as namespace:
        at.apply(sleeper(at, namespace, "dozing"))
        asleep(at, namespace, "dozing", 120)
        operator = next(each for each in at.operators if each.process.poll() is None)
        traffic = steady(inside, namespace, arguments.rate)
        time.sleep(5)
        say(f"the operator is killed for {arguments.away:g} s")
        operator.kill()
        back_at, short = time.monotonic() + arguments.away, []
        time.sleep(2)
        long: list[int] = []
        while time.monotonic() < back_at - SHORT_SECONDS - 1:
            if not long and time.monotonic() > back_at - LONG_BEFORE_SECONDS:
                long = [ask_sleeper(inside, namespace, "dozing", LONG_SECONDS) for _ in range(5)]
            short += [ask_sleeper(inside, namespace, "dozing", SHORT_SECONDS) for _ in range(3)]
            time.sleep(min(SHORT_EVERY_SECONDS, max(0.0, back_at - time.monotonic())))
        time.sleep(max(0.0, back_at - time.monotonic()))
        refused = [inside.answer(number, 60) for number in short]
        began = time.monotonic()
        at.operator(identity=operator.identity).leads()
        leads = time.monotonic() - began
        answered = [inside.answer(number, LONG_SECONDS) for number in long]
        waited = time.monotonic() - began
        time.sleep(10)
        answers = traffic.end()
        after = inside.answer(ask_sleeper(inside, namespace, "dozing", 30))
    judge(report, "operator away", answers)
    late = [a for a in refused if a.seconds > SHORT_SECONDS + LATE_SECONDS or a.status not in (200, 503)]
    report.bar(f"asleep, operator away: neither answer nor 503 by the deadline, of {len(refused)}", len(late), 0, "")
    report.figure("asleep, operator away: longest until the 503, deadline 5 s", max(a.seconds for a in refused), "s")
    report.note(f"asleep, operator away: {Counter(a.status for a in refused)}; {refused[0].body.decode(errors='replace')[:200]}")
    lost = [a for a in answered if not good(a)]
    report.bar(f"asleep, deadline beyond the outage: not answered, of {len(answered)}", len(lost), 0, "")
    report.figure("asleep: from the operator's start until it leads", leads, "s")
    report.figure("asleep: from the operator's start until those held were answered", waited, "s")
    report.bar("asleep, after it: not answered, of 1", 0 if good(after) else 1, 0, "")


def without_server(at: World, inside: Inside, arguments: argparse.Namespace, report: Report) -> None:
    """A Triton killed under traffic. Every request here may be sent again, so all could have been saved."""
    with routed(at) as namespace:
        operator = next(each for each in at.operators if each.process.poll() is None)
        pod = at.endpoints(namespace, "big")[1]
        address = (at.get("pods", pod, "-n", "ergon-system") or {})["status"]["podIP"]
        traffic = steady(inside, namespace, arguments.rate)
        for _ in range(arguments.kills):
            time.sleep(5)
            say(f"the Triton of {pod} is killed")
            for pid in triton_pids(operator, address):
                os.kill(pid, signal.SIGKILL)
            time.sleep(2)
            until(lambda: len(at.endpoints(namespace, "big")) == 2, "both servers again", 90)
        time.sleep(3)
        judge(report, "a Triton killed", traffic.end())


def without_gateway(at: World, inside: Inside, arguments: argparse.Namespace, report: Report) -> None:
    """A gateway killed with requests held, and one that is stopped as a rollout does."""
    with routed(at) as namespace:
        at.apply(sleeper(at, namespace, "heavy", SLOW_LOAD_SECONDS))
        asleep(at, namespace, "heavy", 120)
        held = [ask_sleeper(inside, namespace, "heavy", 60) for _ in range(HELD)]
        both = pods(at)
        until(lambda: sum(_held(at, pod, "heavy") for pod in both) == HELD, "all held", SLOW_LOAD_SECONDS)
        in_hand = _held(at, both[0], "heavy")
        say(f"a gateway that holds {in_hand} of {HELD} requests is killed")
        kill(both[0])
        answers = [inside.answer(number, 90) for number in held]
        lost = [answer for answer in answers if not good(answer)]
        report.figure("gateway killed while it held so many requests", in_hand, "")
        report.bar("gateway killed: requests lost beyond those it held", max(0, len(lost) - in_hand), 0, "")
        report.figure("gateway killed: of the others, answered", HELD - len(lost), "")
        report.note(f"gateway killed: {Counter(str(answer.status) for answer in answers)}")
        again = [inside.answer(ask_sleeper(inside, namespace, "heavy", 60), 90) for _ in lost]
        report.bar(f"gateway killed: asked again and not answered, of {len(again)}", sum(not good(a) for a in again), 0, "")
        until(lambda: len(pods(at)) == 2, "the gateway back", 60)
        kinds = ("route", "route that escalates", "model's own name")
        traffic = steady(inside, namespace, arguments.rate, kinds)
        time.sleep(3)
        victim = pods(at)[0]["metadata"]["name"]
        say(f"{victim} is deleted, as a rollout does")
        at.kubectl("delete", "pod", victim, "-n", "ergon-system", "--wait=false")
        until(lambda: [p["metadata"]["name"] for p in pods(at)].count(victim) == 0 and len(pods(at)) == 2, "two again", 90)
        time.sleep(10)
        judge(report, "one of two gateways stopped", traffic.end())


def _held(at: World, pod: Object, name: str) -> int:
    page = at.inside("curl", "-s", "-m", "5", f"http://{pod['status']['podIP']}:8080/metrics").stdout
    mine = [line for line in page.splitlines() if line.startswith("ergon_gateway_held_requests{") and f'model="{name}"' in line]
    return sum(int(float(line.rpartition(" ")[2])) for line in mine)


RUNS = {"operator": without_operator, "server": without_server, "gateways": without_gateway}


def main() -> int:
    """Run the bench; the exit code."""
    options = parser(__doc__)
    options.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="which parts")
    options.add_argument("--rate", type=float, default=50.0, help="requests a second, of all kinds together")
    options.add_argument("--away", type=float, default=120.0, help="seconds for which the operator is away")
    options.add_argument("--kills", type=int, default=2, help="how often a Triton is killed")
    arguments = options.parse_args()
    report = Report("gateway.outage" if arguments.only == PARTS else f"gateway.outage-{'-'.join(arguments.only)}")

    def measure(at: World, inside: Inside) -> None:
        for name in arguments.only:
            RUNS[name](at, inside, arguments, report)

    return measured(report, arguments, measure)


if __name__ == "__main__":
    sys.exit(main())
