"""From documents, as files or the API server hold them, to a Fleet; and to one line for each that cannot be understood."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ergon.api.parse import InvalidObject, parse_budget, parse_model, parse_pool, parse_route
from ergon.api.types import API_VERSION, GROUP, Spec
from ergon.api.unknown import unknown_fields
from ergon.fleet.build import build_model, build_pool, build_watt_limit
from ergon.fleet.types import Fleet, Model, ModelKey, Pool, Replica, ServerKey, WattLimit

_OURS = ("AcceleratorPool", "SpecializedModel", "EnergyBudget", "TaskRoute")
_NAMESPACED = ("SpecializedModel", "TaskRoute")
_API_VERSIONS = {**dict.fromkeys(_OURS, API_VERSION), "Namespace": "v1"}
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_NAME_LABEL = "kubernetes.io/metadata.name"
_SHOWN = 3
_SPEC = TypeVar("_SPEC", bound=Spec)


@dataclass(frozen=True, slots=True)
class Document:
    """One document: what it holds, and where it stands, such as `models.yaml, document 2`."""

    where: str
    content: Any


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with one object: where it stands, which it is, and one sentence that names the field and what to do."""

    where: str
    what: str
    message: str

    def __str__(self) -> str:
        """One line, whatever names and keys a file holds."""
        return " ".join(": ".join(part for part in (self.where, self.what[:160], self.message) if part).split())


@dataclass(frozen=True, slots=True)
class Reading:
    """A fleet of all that could be understood, and what could not. `broken` are the models that are there but not in it."""

    fleet: Fleet
    problems: tuple[Problem, ...]
    broken: frozenset[ModelKey]


class _Refused(Exception):
    """An object is not taken; the message is for a person."""


def read_fleet(
    documents: Iterable[Document], *, operator_namespace: str, default_namespace: str = "default", strict: bool = True
) -> Reading:
    """Pools, models, budgets and namespaces of the documents. Routes are judged, lists looked into, other kinds passed over.
    Never raises.

    `strict` refuses unknown fields, as the API server does for what people send; not for what it stores itself. Placements that
    a status names become the current plan. Of objects of one name, the first counts and the others are problems.
    """
    reader = _Reader(operator_namespace, default_namespace, strict)
    for document in documents:
        reader.take(document)
    return reader.reading()


@dataclass
class _Reader:
    operator_namespace: str
    default_namespace: str
    strict: bool
    pools: list[Pool] = field(default_factory=list)
    models: list[Model] = field(default_factory=list)
    limits: list[WattLimit] = field(default_factory=list)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    current: list[Replica] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    broken: set[ModelKey] = field(default_factory=set)
    seen: dict[tuple[str, str, str], str] = field(default_factory=dict)

    def take(self, document: Document) -> None:
        for item in _flattened(document):
            kind = item.content.get("kind")
            if not isinstance(kind, str) or kind not in _API_VERSIONS or _is_foreign(item.content.get("apiVersion"), kind):
                continue
            namespace, name = self._address(item.content, kind)
            try:
                self._take(item, kind, namespace, name)
            except _Refused as refusal:
                what = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}".rstrip()
                self.problems.append(Problem(item.where, what, str(refusal)))
                if kind == "SpecializedModel":
                    self.broken.add(ModelKey(namespace, name))

    def reading(self) -> Reading:
        fleet = Fleet(
            pools=tuple(self.pools),
            models=tuple(self.models),
            namespaces=self.namespaces,
            operator_namespace=self.operator_namespace,
            current=tuple(self.current),
            watt_limits=tuple(self.limits),
        )
        return Reading(fleet, tuple(self.problems), frozenset(self.broken - {model.key for model in self.models}))

    def _address(self, obj: dict[Any, Any], kind: str) -> tuple[str, str]:
        metadata = _metadata(obj)
        namespace = metadata.get("namespace") or self.default_namespace
        return (str(namespace) if kind in _NAMESPACED else ""), str(metadata.get("name") or "")

    def _take(self, item: Document, kind: str, namespace: str, name: str) -> None:
        obj = item.content
        if obj.get("apiVersion") != _API_VERSIONS[kind]:
            raise _Refused(f"apiVersion: must be {_API_VERSIONS[kind]}")
        if name:
            first = self.seen.setdefault((kind, namespace, name), item.where)
            if first != item.where:
                raise _Refused(f"it is there twice, first in {first}; remove one")
        labels = _labels(obj)
        if self.strict and kind in _OURS:
            _refuse_unknown(kind, obj)
        match kind:
            case "AcceleratorPool":
                self._take_pool(obj, name, labels)
            case "SpecializedModel":
                self._take_model(obj, ModelKey(namespace, name))
            case "TaskRoute":
                _namespace_name(namespace, "metadata.namespace")
                _parsed(parse_route, obj)  # judged with the rest; a plan from files has no requests to count through it
            case "EnergyBudget":
                limit = build_watt_limit(name, _parsed(parse_budget, obj))
                self.limits += [limit] if limit is not None else []
            case "Namespace":
                self.namespaces[_namespace_name(name, "metadata.name")] = {**labels, _NAME_LABEL: name}

    def _take_pool(self, obj: dict[Any, Any], name: str, labels: dict[str, str]) -> None:
        spec = _parsed(parse_pool, obj)
        deleting = bool(_metadata(obj).get("deletionTimestamp"))
        self.pools.append(build_pool(name, *_identity(obj), labels, spec, deleting=deleting))

    def _take_model(self, obj: dict[Any, Any], key: ModelKey) -> None:
        _namespace_name(key.namespace, "metadata.namespace")
        spec = _parsed(parse_model, obj)
        try:
            self.models.append(build_model(key, *_identity(obj), spec))
        except (TypeError, ValueError) as error:  # YAML can say what JSON cannot: maps in themselves, keys that are no text
            raise _Refused(f"spec.variants: config cannot be written as JSON ({error})") from None
        self.current += _placed(key, obj.get("status"))


def _flattened(document: Document) -> Iterator[Document]:
    """The document, or where it is a list of objects, each of them."""
    content = document.content
    if not isinstance(content, dict):
        return
    items = content.get("items")
    if str(content.get("kind")).endswith("List") and isinstance(items, list):
        for number, item in enumerate(items, 1):
            if isinstance(item, dict):
                yield Document(f"{document.where}, item {number}", item)
    else:
        yield document


def _is_foreign(api_version: Any, kind: str) -> bool:
    """Whether another project's kind only has the same name."""
    if not isinstance(api_version, str):
        return False
    group, slash, _ = api_version.partition("/")
    return (group if slash else "") != (GROUP if kind in _OURS else "")


def _metadata(obj: dict[Any, Any]) -> dict[Any, Any]:
    metadata = obj.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _identity(obj: dict[Any, Any]) -> tuple[str, int]:
    metadata = _metadata(obj)
    generation = metadata.get("generation")
    return str(metadata.get("uid") or ""), generation if isinstance(generation, int) else 0


def _labels(obj: dict[Any, Any]) -> dict[str, str]:
    labels = _metadata(obj).get("labels") or {}
    if not isinstance(labels, dict):
        raise _Refused("metadata.labels: must be a map")
    for key, value in labels.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise _Refused(f"metadata.labels.{key}: must be text; put it in quotes")
    return labels


def _namespace_name(name: str, where: str) -> str:
    if not _NAMESPACE.fullmatch(name):
        raise _Refused(f"{where}: {name[:63]!r} is no namespace; it takes lower-case letters, digits and '-', at most 63")
    return name


def _refuse_unknown(kind: str, obj: dict[Any, Any]) -> None:
    try:
        unknown = unknown_fields(kind, obj)
    except RecursionError:
        raise _Refused("spec: contains itself") from None
    if unknown:
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        fields = ", ".join(path[:200] for path in unknown[:_SHOWN])
        raise _Refused(f"{fields}{more}: unknown field; correct its name or remove it")


def _parsed(parse: Callable[[Any], _SPEC | InvalidObject], obj: dict[Any, Any]) -> _SPEC:
    spec = parse(obj)
    if isinstance(spec, InvalidObject):
        raise _Refused(spec.message)
    return spec


def _placed(key: ModelKey, status: Any) -> list[Replica]:
    """Replicas that the status says stand, those on their way out not counted."""
    placements = status.get("placements") if isinstance(status, dict) else None
    found = []
    for placement in placements if isinstance(placements, list) else []:
        match placement:
            case {"pool": str(pool), "server": int(server), "variant": str(variant), "state": str(state)} if state != "Draining":
                found.append(Replica(key, variant, ServerKey(pool, server)))
    return found
