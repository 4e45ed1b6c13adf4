"""The truth about a TaskRoute, as a status: its models in the order they are asked, whether it answers, how much escalates."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ergon.api.conditions import Judged, RouteAccepted, RouteEscalation, RouteReady
from ergon.api.route import TaskRouteSpec
from ergon.demand.cascade import RouteFigures
from ergon.energy.escalation import Allowed
from ergon.fleet.types import ModelKey
from ergon.reconcile.figures import rounded
from ergon.reconcile.observed import Refusal

State = Literal["Ready", "Asleep", "NotReady"]
CANDIDATES = 16
_UNKNOWN_JOULES = float("inf")


@dataclass(frozen=True, slots=True)
class RouteModel:
    """A model of the route's namespace. `quality`: of what is placed, else of its best variant. `joules`: of a request, None:
    nobody knows; `provenance`: what they rest on."""

    name: str
    task: str
    labels: dict[str, str]
    quality: float
    state: State
    joules: float | None = None
    provenance: str = "assumed"


@dataclass(frozen=True, slots=True)
class RouteView:
    """All that is decided from for one route. `spec` None: it cannot be understood, `refusal` says why.

    `fallbacks`: of every route of its namespace, its fallback. `figures`: what the gateways counted, None before any did.
    `gateway`: whether Ergon's gateway stands; `service`: its Service's address.
    """

    key: ModelKey
    spec: TaskRouteSpec | None
    refusal: Refusal | None = None
    models: tuple[RouteModel, ...] = ()
    fallbacks: Mapping[str, str | None] = field(default_factory=dict)
    gateway: bool = True
    service: str = ""
    figures: RouteFigures | None = None
    allowed: Allowed | None = None


def chosen(spec: TaskRouteSpec, models: Iterable[RouteModel]) -> list[RouteModel]:
    """The route's candidates in the order they are asked: by its `order`, which leaves out whom it does not name, else by
    joules a request, the least first; of those that take the same, the better first. Whose joules nobody knows comes last, and
    of several such the poorer first, since a bigger model mostly takes more.
    """
    found = [model for model in models if takes(spec, model.task, model.labels)]
    if spec.order:
        place = {name: number for number, name in enumerate(spec.order)}
        return sorted((model for model in found if model.name in place), key=lambda model: place[model.name])
    return sorted(found, key=_cost)[:CANDIDATES]


def takes(spec: TaskRouteSpec, task: str, labels: dict[str, str]) -> bool:
    """Whether the route may ask a model of that task and those labels."""
    return (spec.any_task or task == spec.task) and (spec.candidates is None or spec.candidates.matches(labels))


def _cost(model: RouteModel) -> tuple[float, float, str]:
    # To three digits, as a status shows them: what differs by less is the same.
    if model.joules is None:
        return _UNKNOWN_JOULES, model.quality, model.name
    return rounded(model.joules), -model.quality, model.name


def route_status(view: RouteView) -> tuple[list[Judged], dict[str, Any]]:
    """The conditions, and the rest of the status without times."""
    if view.spec is None:
        message = view.refusal.message if view.refusal is not None else ""
        return [_accepted(RouteAccepted.INVALID_SPEC, message), _not_accepted(message)], {}
    candidates = chosen(view.spec, view.models)
    accepted = _judge_spec(view, view.spec, candidates)
    ready = _ready(view.spec, candidates) if accepted.status else _not_accepted(accepted.message)
    body: dict[str, Any] = {
        "endpoint": f"http://{view.service}:8000/{view.key.namespace}/{view.key.name}" if view.service else "",
        "candidates": [_candidate(model) for model in candidates],
        "requestsPerSecond": rounded(view.figures.requests_per_second) if view.figures is not None else 0.0,
        "allowedRate": view.allowed.rate if view.allowed is not None else view.spec.escalation.max_rate,
    }
    figures = view.figures
    if figures is not None:
        for name, value in (
            ("escalationRate", figures.escalation_rate),
            ("joulesPerRequest", figures.joules_per_request),
            ("quality", figures.quality),
        ):
            if value is not None:
                body[name] = rounded(value)
    return [accepted, ready, _escalation(view, view.spec)], body


def _candidate(model: RouteModel) -> dict[str, Any]:
    joules = {} if model.joules is None else {"joulesPerRequest": rounded(model.joules)}
    return {"model": model.name, "quality": model.quality, **joules, "provenance": model.provenance, "state": model.state}


def _judge_spec(view: RouteView, spec: TaskRouteSpec, candidates: list[RouteModel]) -> Judged:
    """Whether the route can be served as it is written; what is merely missing yet is said, and refused by nobody."""
    if wrong := contradiction(spec):
        return _accepted(RouteAccepted.INVALID_SPEC, wrong)
    if circle := fallback_cycle(view.key.name, view.fallbacks):
        return _accepted(RouteAccepted.FALLBACK_CYCLE, f"spec.fallback goes in a circle: {' -> '.join(circle)}")
    if not view.gateway:
        return _accepted(RouteAccepted.NO_GATEWAY, "no gateway serves routes: install it (chart value gateway.enabled)")
    notes = []
    if spec.fallback is not None and spec.fallback not in view.fallbacks:
        notes.append(f"fallback {spec.fallback} is not there")
    if missing := [name for name in spec.order if name not in {model.name for model in candidates}]:
        notes.append(f"not a model of task {spec.task} that it selects: {', '.join(missing)}")
    return Judged("Accepted", True, RouteAccepted.ACCEPTED, "; ".join(notes))


def contradiction(spec: TaskRouteSpec) -> str:
    """Why the rules let no answer stand; empty where they do."""
    by_output: dict[str, tuple[float, float]] = {}
    for rule in spec.escalation.when:
        below, above = by_output.get(rule.output, (-_UNKNOWN_JOULES, _UNKNOWN_JOULES))
        below = below if rule.below is None else max(below, rule.below)
        above = above if rule.above is None else min(above, rule.above)
        by_output[rule.output] = below, above
    for output, (below, above) in by_output.items():
        if above < below:
            return (
                f"spec.escalation.when: every number in {output} is below {below:g} or above {above:g}, so that every answer "
                "escalates: put `below` under `above`, or drop one of them"
            )
    return ""


def fallback_cycle(name: str, fallbacks: Mapping[str, str | None]) -> list[str]:
    """The way from a route through its fallbacks to one that was there before; empty where it ends."""
    way = [name]
    while (following := fallbacks.get(way[-1])) is not None:
        if following in way:
            return [*way, following]
        way.append(following)
    return []


def _ready(spec: TaskRouteSpec, candidates: list[RouteModel]) -> Judged:
    """Whether a request is answered, and at the quality that is asked for."""
    if not candidates:
        whose = "" if spec.candidates is None else " and the labels that spec.candidates asks for"
        what = "no model has" if spec.any_task else f"no model of the namespace has task {spec.task}"
        labels = whose if not spec.any_task else " the labels that spec.candidates asks for"
        return Judged("Ready", False, RouteReady.NO_CANDIDATE, what + labels)
    best = max(candidates, key=lambda model: (model.quality, model.name))
    if best.quality < spec.min_quality:
        message = f"minQuality is {spec.min_quality:g}; the best there is, {best.name}, has {best.quality:g}"
        return Judged("Ready", False, RouteReady.QUALITY_TOO_LOW, message)
    by_state = {state: [model.name for model in candidates if model.state == state] for state in ("Ready", "Asleep", "NotReady")}
    down = f"; not ready: {', '.join(by_state['NotReady'])}" if by_state["NotReady"] else ""
    if by_state["Ready"]:
        return Judged("Ready", True, RouteReady.READY, f"ready: {', '.join(by_state['Ready'])}{down}")
    if by_state["Asleep"]:
        return Judged("Ready", True, RouteReady.ASLEEP, f"the gateway wakes {by_state['Asleep'][0]} when it is asked for{down}")
    return Judged("Ready", False, RouteReady.NO_MODEL_READY, f"none of {', '.join(by_state['NotReady'])} answers")


def _escalation(view: RouteView, spec: TaskRouteSpec) -> Judged:
    allowed = view.allowed
    if allowed is not None and allowed.lowered_by:
        return Judged("FullEscalation", False, RouteEscalation.LOWERED_BY_BUDGET, allowed.message)
    wished = view.figures.wished_rate if view.figures is not None else None
    most = spec.escalation.max_rate
    if wished is not None and most < 1 and wished > most:
        message = f"{wished:.0%} would escalate, maxRate lets {most:.0%}"
        return Judged("FullEscalation", False, RouteEscalation.AT_MAX_RATE, message)
    return Judged("FullEscalation", True, RouteEscalation.UNLIMITED, allowed.message if allowed is not None else "")


def _accepted(reason: RouteAccepted, message: str) -> Judged:
    return Judged("Accepted", False, reason, message)


def _not_accepted(message: str) -> Judged:
    return Judged("Ready", False, RouteReady.NOT_ACCEPTED, message)
