"""A route and its models as the gateway needs them: read from objects once, when they change. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ergon.api.model import SpecializedModelSpec, Variant
from ergon.api.parse import InvalidObject, parse_model, parse_route
from ergon.api.quantities import duration_seconds
from ergon.api.route import Chat, Comparison, Samples, TaskRouteSpec

Object = Mapping[str, Any]
MEASURED, DERIVED, ASSUMED = "measured", "derived", "assumed"
_WORST_LAST = (MEASURED, DERIVED, ASSUMED)


@dataclass(frozen=True)
class Model:
    """One model, as far as a gateway must know it."""

    namespace: str
    name: str
    task: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    quality: float = 0.0
    """Of its best variant."""
    asleep: bool = False
    problem: str = ""
    """Why it is not ready, for a person; empty where it is, or sleeps."""
    stalled: str = ""
    """Why it will not get ready on its own; empty where it may."""
    cold_start_seconds: float | None = None
    """From a request for it to its first server, as it was the last time; None: nobody knows."""
    variants: tuple[Variant, ...] = ()

    @property
    def served(self) -> str:
        """Its name to servers and clients."""
        return f"{self.namespace}.{self.name}"


@dataclass(frozen=True)
class Candidate:
    """One model of a route. `joules` a request there; None: nobody knows."""

    model: str
    served: str
    quality: float = 0.0
    joules: float | None = None
    provenance: str = ASSUMED


@dataclass(frozen=True)
class Route:
    """One route: its models in the order they are asked, and when the next one is. `problem`: why it cannot be served at all."""

    namespace: str
    name: str
    candidates: tuple[Candidate, ...] = ()
    when: tuple[Comparison, ...] = ()
    after_seconds: float | None = None
    allowed_rate: float = 1.0
    fallback: str | None = None
    timeout_seconds: float = 30.0
    chat: Chat | None = None
    samples: Samples | None = None
    problem: str = ""
    names: frozenset[str] = frozenset()
    """Outputs that `when` looks at."""


def model_of(obj: Object) -> Model:
    """A SpecializedModel. One whose spec cannot be read is there, without a task."""
    metadata, spec = obj.get("metadata") or {}, parse_model(obj)
    status = obj.get("status") or {}
    conditions = {condition.get("type"): condition for condition in status.get("conditions") or ()}
    ready, stalled = conditions.get("Ready") or {}, conditions.get("Stalled") or {}
    asleep = ready.get("reason") == "Asleep"
    cold_start = status.get("coldStart") or {}
    total, server = cold_start.get("totalSeconds"), cold_start.get("serverSeconds")
    return Model(
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata.get("name", "")),
        task=spec.task if isinstance(spec, SpecializedModelSpec) else "",
        labels=metadata.get("labels") or {},
        quality=max((v.quality or 0.0 for v in spec.variants), default=0.0) if isinstance(spec, SpecializedModelSpec) else 0.0,
        asleep=asleep,
        problem="" if asleep or ready.get("status") == "True" else _told(ready),
        stalled=_told(stalled) if stalled.get("status") == "True" else "",
        cold_start_seconds=float(total) + float(server or 0) if isinstance(total, (int, float)) and total > 0 else None,
        variants=tuple(spec.variants) if isinstance(spec, SpecializedModelSpec) else (),
    )


def route_of(obj: Object, models: Iterable[Model]) -> Route:
    """A TaskRoute with its candidates among these models of its namespace.

    The operator's status gives the order and the joules; before it has spoken, models come by their quality, the least first,
    since a bigger model mostly takes more.
    """
    metadata, spec = obj.get("metadata") or {}, parse_route(obj)
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    if isinstance(spec, InvalidObject):
        return Route(namespace, name, problem=spec.message)
    status = obj.get("status") or {}
    of_namespace = {model.name: model for model in models}
    fresh = status.get("observedGeneration", 0) >= metadata.get("generation", 0)
    candidates = _told_candidates(status, of_namespace) if fresh else ()
    return Route(
        namespace=namespace,
        name=name,
        candidates=candidates or _own_candidates(spec, of_namespace),
        when=tuple(spec.escalation.when),
        after_seconds=duration_seconds(spec.escalation.after) if spec.escalation.after else None,
        allowed_rate=min(spec.escalation.max_rate, float(status.get("allowedRate", 1.0)) if fresh else 1.0),
        fallback=spec.fallback,
        timeout_seconds=duration_seconds(spec.timeout),
        chat=spec.chat,
        samples=spec.samples,
        names=frozenset(comparison.output for comparison in spec.escalation.when),
    )


def spent(route: Route, asked: Iterable[str]) -> tuple[float, str] | None:
    """Joules that asking these models took, with the weakest of their provenances; None where one's are not known."""
    by_name = {candidate.model: candidate for candidate in route.candidates}
    total, worst = 0.0, MEASURED
    for model in asked:
        candidate = by_name.get(model)
        if candidate is None or candidate.joules is None:
            return None
        total += candidate.joules
        worst = max(worst, candidate.provenance, key=_WORST_LAST.index)
    return total, worst


def _told_candidates(status: Object, models: Mapping[str, Model]) -> tuple[Candidate, ...]:
    found = []
    for told in status.get("candidates") or ():
        model = models.get(str(told.get("model")))
        if model is not None:
            joules, provenance = told.get("joulesPerRequest"), told.get("provenance")
            found.append(
                Candidate(
                    model.name,
                    model.served,
                    float(told.get("quality") or 0.0),
                    float(joules) if isinstance(joules, (int, float)) else None,
                    provenance if provenance in _WORST_LAST else ASSUMED,
                )
            )
    return tuple(found)


def _own_candidates(spec: TaskRouteSpec, models: Mapping[str, Model]) -> tuple[Candidate, ...]:
    chosen = [
        model
        for model in models.values()
        if (spec.any_task or model.task == spec.task) and (spec.candidates is None or spec.candidates.matches(dict(model.labels)))
    ]
    if spec.order:
        place = {name: number for number, name in enumerate(spec.order)}
        chosen = sorted((model for model in chosen if model.name in place), key=lambda model: place[model.name])
    else:
        chosen.sort(key=lambda model: (model.quality, model.name))
    return tuple(Candidate(model.name, model.served, model.quality) for model in chosen)


def _told(condition: Object) -> str:
    reason, message = condition.get("reason") or "Unknown", condition.get("message") or ""
    return f"{reason}: {message}" if message else str(reason)
