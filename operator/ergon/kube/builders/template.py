"""What a pool's template may not do to a server, checked on the merged pod rather than on the overlay.

Whoever may write an AcceleratorPool must not thereby become the operator: its account, its secrets and the node stay out of
reach, and what the engine relies on (names, arguments, labels, the read-only store) stays as it was built.
"""

import json
import posixpath
import re
from typing import Any

from ergon.kube.strategic_merge import MergeError, strategic_merge

LIMIT_BYTES = 64 * 1024
_ACCOUNT = ("serviceAccountName", "serviceAccount")
_HOST = ("hostNetwork", "hostPID", "hostIPC", "shareProcessNamespace")
_OURS = ("automountServiceAccountToken", "restartPolicy", "enableServiceLinks", "hostname", "subdomain")
_FIXED = {"triton": ("image", "args", "command", "ports"), "store": ("args", "command", "ports")}
_OWN_SECRET_VOLUME = "tls"
_POOL_KEYS = re.compile(r"ergon-.+-keys")
_STORE_ONLY = frozenset({_OWN_SECRET_VOLUME, "store-tmp"})


class TemplateRefused(ValueError):
    """The pool's template cannot be used; the text is one sentence that names the field under `spec.template`."""


def lay_over(built: dict[str, Any], overlay: dict[str, Any]) -> dict[str, Any]:
    """The built pod template with the pool's overlay on it. Raises TemplateRefused."""
    size = len(json.dumps(overlay, default=str).encode())
    if size > LIMIT_BYTES:
        raise TemplateRefused(f"spec.template is {size} bytes long; the limit is {LIMIT_BYTES}")
    unknown = sorted(set(overlay) - {"metadata", "spec"})
    if unknown:
        raise TemplateRefused(f"spec.template.{unknown[0]} is not part of a pod template; write metadata or spec")
    try:
        merged: dict[str, Any] = strategic_merge(built, overlay, path="spec.template")
    except MergeError as error:
        raise TemplateRefused(str(error)) from error
    try:
        problem = _problem(built, merged)
    except (AttributeError, KeyError, TypeError) as error:
        raise TemplateRefused(f"spec.template does not have the shape of a pod template ({error})") from error
    if problem:
        raise TemplateRefused(problem)
    return merged


def _problem(built: dict[str, Any], merged: dict[str, Any]) -> str | None:
    return (
        _problem_of_metadata(built["metadata"], merged["metadata"])
        or _problem_of_pod(built["spec"], merged["spec"])
        or _problem_of_containers(built["spec"], merged["spec"])
        or _problem_of_volumes(built["spec"], merged["spec"])
    )


def _problem_of_metadata(built: dict[str, Any], merged: dict[str, Any]) -> str | None:
    extra = sorted(set(merged) - {"labels", "annotations"})
    if extra:
        return f"spec.template.metadata.{extra[0]} cannot be set; only labels and annotations can"
    for key, value in built["labels"].items():
        if merged["labels"].get(key) != value:
            return f"spec.template.metadata.labels: {key} is Ergon's and cannot be changed"
    foreign = {*merged["labels"], *merged["annotations"]} - {*built["labels"], *built["annotations"]}
    for key in sorted(foreign):
        if key.startswith("ergon.dev/"):
            return f"spec.template.metadata: {key} is in Ergon's own prefix"
    return None


def _problem_of_pod(built: dict[str, Any], merged: dict[str, Any]) -> str | None:
    for field in _ACCOUNT:
        if field in merged:
            return f"spec.template.spec.{field}: servers run models' code, so they get no account of the cluster"
    for field in _HOST:
        if merged.get(field):
            return (
                f"spec.template.spec.{field}: servers run models' code, so they do not share the node or each other's processes"
            )
    for field in _OURS:
        if merged.get(field) != built.get(field):
            return f"spec.template.spec.{field} is Ergon's and cannot be changed"
    if merged.get("terminationGracePeriodSeconds", 0) < built["terminationGracePeriodSeconds"]:
        return f"spec.template.spec.terminationGracePeriodSeconds: at least {built['terminationGracePeriodSeconds']}"
    return None


def _problem_of_containers(built: dict[str, Any], merged: dict[str, Any]) -> str | None:
    containers = {container["name"]: container for container in merged["containers"]}
    for original in built["containers"]:
        name = original["name"]
        if name not in containers:
            return f"spec.template.spec.containers: {name} cannot be removed"
        for field in _FIXED[name]:
            if containers[name].get(field) != original.get(field):
                return f"spec.template.spec.containers[{name}].{field}: {_instead(field)}"
        mounts = {mount["mountPath"]: mount for mount in containers[name]["volumeMounts"]}
        for mount in original["volumeMounts"]:
            if mounts.get(mount["mountPath"]) != mount:
                where = f"spec.template.spec.containers[{name}].volumeMounts"
                return f"{where}: {mount['mountPath']} is Ergon's and cannot be changed; change the volume {mount['name']} itself"
        env = {variable["name"]: variable for variable in containers[name]["env"]}
        for variable in original["env"]:
            if env.get(variable["name"]) != variable and variable["name"] != "HOME":
                return f"spec.template.spec.containers[{name}].env: {variable['name']} is Ergon's and cannot be changed"
    ours = {container["name"]: {variable["name"] for variable in container["env"]} for container in built["containers"]}
    for container in [*merged["containers"], *merged.get("initContainers", [])]:
        problem = _problem_of_mounts(container) or _problem_of_variables(container, ours.get(container["name"], set()))
        if problem:
            return problem
    return None


def _problem_of_variables(container: dict[str, Any], ours: set[str]) -> str | None:
    where = f"spec.template.spec.containers[{container['name']}]"
    foreign = [variable for variable in container.get("env", []) if variable["name"] not in ours]
    named = [((variable.get("valueFrom") or {}).get("secretKeyRef") or {}).get("name") for variable in foreign]
    named += [(source.get("secretRef") or {}).get("name") for source in container.get("envFrom", [])]
    return _problem_of_secrets(named, where)


def _problem_of_secrets(named: list[Any], where: str) -> str | None:
    for name in named:
        if isinstance(name, str) and _POOL_KEYS.fullmatch(name):
            return f"{where}: the Secret {name} holds a pool's keys and cannot be used here"
    return None


def _instead(field: str) -> str:
    return f"set spec.triton.{field}" if field in ("image", "args") else "is Ergon's and cannot be changed"


def _problem_of_mounts(container: dict[str, Any]) -> str | None:
    name, where = container["name"], f"spec.template.spec.containers[{container['name']}].volumeMounts"
    for mount in container.get("volumeMounts", []):
        if mount["name"] in _STORE_ONLY and name != "store":
            return f"{where}: the volume {mount['name']} is the store's alone"
        if mount["name"] == "models" and name != "store" and not mount.get("readOnly"):
            return f"{where}: the volume models is read-only to all but the store"
        path = "/" + posixpath.normpath(mount["mountPath"]).strip("/")
        if f"{path}/".startswith("/sources/") and (name != "store" or not mount.get("readOnly")):
            return f"{where}: /sources is mounted into the store alone, with readOnly: true"
    return None


def _problem_of_volumes(built: dict[str, Any], merged: dict[str, Any]) -> str | None:
    ours = next(volume for volume in built["volumes"] if volume["name"] == _OWN_SECRET_VOLUME)
    for volume in merged["volumes"]:
        where = f"spec.template.spec.volumes[{volume['name']}]"
        if volume["name"] == _OWN_SECRET_VOLUME:
            if volume != ours:
                return f"{where} is Ergon's and cannot be changed"
            continue
        secrets = [volume["secret"].get("secretName")] if "secret" in volume else []
        for source in (volume.get("projected") or {}).get("sources", []):
            if "serviceAccountToken" in source:
                return f"{where}: servers run models' code, so they get no account of the cluster"
            secrets.append((source.get("secret") or {}).get("name"))
        problem = _problem_of_secrets(secrets, where)
        if problem:
            return problem
    return None
