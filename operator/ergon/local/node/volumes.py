"""Volumes of a pod: folders on the node, filled from the API server, and the mounts that containers see of them."""

from __future__ import annotations

import asyncio
import datetime
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ergon.local import linux
from ergon.local.kubeclient import Api, ApiError
from ergon.local.node.environment import ConfigurationError, Sources, expand, pod_field, quantity
from ergon.local.node.mounts import Mount
from ergon.local.state import NODE_SOURCES_PATH

Object = dict[str, Any]
_FILE_MODE = 0o644
_TOKEN_SECONDS = 3607
_REFRESH_SHARE = 0.8
_CHANGING = ("configMap", "secret", "projected", "downwardAPI")


class VolumeError(Exception):
    """A volume that cannot be set up yet, in the words of a FailedMount event."""


@dataclass(frozen=True)
class Content:
    """A file of a projected volume."""

    data: bytes
    mode: int


class PodVolumes:
    """The volumes of one pod under `folder`; `models` stands for the node path that manifests name for sources."""

    def __init__(self, api: Api, pod: Object, folder: Path, models: Path, facts: Mapping[str, str]) -> None:
        self._api = api
        self._pod = pod
        self._folder = folder
        self._models = models
        self._facts = facts
        self._paths: dict[str, Path] = {}
        self._tmpfs: list[Path] = []
        self._tokens: dict[tuple[str, str, int], tuple[float, bytes]] = {}

    async def set_up(self) -> None:
        """Make every volume; raises VolumeError for what is missing. May be called again after an error."""
        for volume in self._pod["spec"].get("volumes") or []:
            if volume["name"] not in self._paths:
                try:
                    self._paths[volume["name"]] = await self._make(volume)
                except (ConfigurationError, ApiError, OSError, ValueError) as error:
                    raise VolumeError(f'volume "{volume["name"]}": {error}') from error

    async def refresh(self) -> None:
        """Bring changed Secrets, ConfigMaps and tokens that are about to expire into the running pod."""
        for volume in self._pod["spec"].get("volumes") or []:
            if volume["name"] in self._paths and any(kind in volume for kind in _CHANGING):
                write_payload(self._paths[volume["name"]], await self._payload(volume))

    def tear_down(self) -> None:
        """Unmount and delete all that the pod had; hostPaths stay as they are."""
        self.lose_memory()
        shutil.rmtree(self._folder, ignore_errors=True)

    def lose_memory(self) -> None:
        """Unmount what lies in memory; what lies on disk stays, as after a power cut."""
        for path in self._tmpfs:
            linux.unmount(str(path))
        self._tmpfs.clear()

    def mounts(self, container: Object, environment: Mapping[str, str]) -> list[Mount]:
        """What a container mounts; raises ConfigurationError for a subPath that leaves its volume."""
        found = []
        for wanted in container.get("volumeMounts") or []:
            source = self._paths[wanted["name"]]
            sub_path = wanted.get("subPath") or expand(str(wanted.get("subPathExpr") or ""), environment)
            if sub_path:
                source = _inside(source, sub_path)
            found.append(Mount(wanted["mountPath"], str(source), bool(wanted.get("readOnly")), source.is_dir()))
        return found

    async def _make(self, volume: Object) -> Path:
        target = self._folder / "volumes" / str(volume["name"])
        if "emptyDir" in volume:
            return self._empty(target, volume["emptyDir"] or {})
        if "hostPath" in volume:
            return self._host(volume["hostPath"]["path"], str(volume["hostPath"].get("type") or ""))
        if "persistentVolumeClaim" in volume:
            return await self._claimed(volume["persistentVolumeClaim"]["claimName"])
        if any(kind in volume for kind in ("configMap", "secret", "projected", "downwardAPI")):
            target.mkdir(parents=True, exist_ok=True)
            write_payload(target, await self._payload(volume))
            return target
        kinds = ", ".join(key for key in volume if key != "name")
        raise ConfigurationError(f"local nodes have no volumes of kind {kinds}")

    def _empty(self, target: Path, spec: Object) -> Path:
        target.mkdir(parents=True, exist_ok=True)
        target.chmod(0o777)
        if spec.get("medium") == "Memory":
            if target.is_mount():
                linux.unmount(str(target))
            limit = spec.get("sizeLimit")
            size = f",size={int(quantity(str(limit)))}" if limit else ""
            linux.mount("tmpfs", str(target), "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, f"mode=1777{size}")
            self._tmpfs.append(target)
        return target

    def _host(self, path: str, kind: str) -> Path:
        """A folder of this machine; the node's sources path is the person's models folder."""
        if path == NODE_SOURCES_PATH or path.startswith(f"{NODE_SOURCES_PATH}/"):
            found = self._models / path.removeprefix(NODE_SOURCES_PATH).lstrip("/")
        else:
            found = Path(path)
        if kind == "DirectoryOrCreate" or found == self._models:
            found.mkdir(parents=True, exist_ok=True)
        if not found.exists():
            raise ConfigurationError(f"hostPath {path}: no such folder on this machine")
        return found

    async def _claimed(self, claim_name: str) -> Path:
        namespace = self._pod["metadata"]["namespace"]
        claim = await self._api.get(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{claim_name}")
        name = claim["spec"].get("volumeName")
        if (claim.get("status") or {}).get("phase") != "Bound" or not name:
            raise ConfigurationError(f'persistentvolumeclaim "{claim_name}" is not bound')
        spec = (await self._api.get(f"/api/v1/persistentvolumes/{name}"))["spec"]
        place = spec.get("hostPath") or spec.get("local")
        if place is None:
            raise ConfigurationError(f'persistentvolume "{name}" is neither hostPath nor local')
        return self._host(place["path"], str(place.get("type") or ""))

    async def _payload(self, volume: Object) -> dict[str, Content]:
        if "projected" in volume:
            mode = int(volume["projected"].get("defaultMode") or _FILE_MODE)
            found: dict[str, Content] = {}
            for source in volume["projected"].get("sources") or []:
                found |= await self._projection(source, mode)
            return found
        (kind,) = (key for key in volume if key != "name")
        mode = int(volume[kind].get("defaultMode") or _FILE_MODE)
        return await self._projection({kind: volume[kind]}, mode)

    async def _projection(self, source: Object, mode: int) -> dict[str, Content]:
        """The files of one source of a projected volume, or of a volume of that kind."""
        if "serviceAccountToken" in source:
            token = await self._token(source["serviceAccountToken"])
            return {source["serviceAccountToken"]["path"]: Content(token, mode)}
        if "downwardAPI" in source:
            items = source["downwardAPI"].get("items") or []
            if any("fieldRef" not in item for item in items):
                raise ConfigurationError("local nodes have no resourceFieldRef in volumes; use it in env")
            return {
                item["path"]: Content(
                    pod_field(self._pod, item["fieldRef"]["fieldPath"], self._facts).encode(), int(item.get("mode") or mode)
                )
                for item in items
            }
        if "secret" in source:
            reference = source["secret"]
            name = reference.get("secretName") or reference["name"]
            secret = await self._read("secrets", name)
            data = Sources({name: secret}, {}).secret(name, bool(reference.get("optional")))
        else:
            reference = source["configMap"]
            name = reference["name"]
            data = Sources({}, {name: await self._read("configmaps", name)}).config_map(name, bool(reference.get("optional")))
        return select_items(name, data, reference.get("items"), mode, bool(reference.get("optional")))

    async def _read(self, resource: str, name: str) -> Object | None:
        try:
            return await self._api.get(f"/api/v1/namespaces/{self._pod['metadata']['namespace']}/{resource}/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def _token(self, source: Object) -> bytes:
        """A token bound to this pod, from the TokenRequest API; renewed when 80 % of its life is over."""
        # By all that it was asked for: two volumes may call different tokens the same.
        asked = (source["path"], source.get("audience") or "", int(source.get("expirationSeconds") or _TOKEN_SECONDS))
        due, token = self._tokens.get(asked, (0.0, b""))
        if time.monotonic() < due:
            return token
        metadata = self._pod["metadata"]
        account = self._pod["spec"].get("serviceAccountName") or "default"
        _, audience, seconds = asked
        reference = {"apiVersion": "v1", "kind": "Pod", "name": metadata["name"], "uid": metadata["uid"]}
        answer = await self._api.request(
            "POST",
            f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "audiences": [audience] if audience else [],
                    "expirationSeconds": seconds,
                    "boundObjectRef": reference,
                },
            },
        )
        token = str(answer["status"]["token"]).encode()
        self._tokens[asked] = (time.monotonic() + seconds * _REFRESH_SHARE, token)
        return token


def select_items(
    name: str, data: Mapping[str, bytes], items: list[Object] | None, mode: int, optional: bool
) -> dict[str, Content]:
    """All keys as files, or the chosen `items` under their paths; raises ConfigurationError for a key that is not there."""
    if not items:
        return {key: Content(value, mode) for key, value in data.items()}
    found = {}
    for item in items:
        if item["key"] in data:
            found[item["path"]] = Content(data[item["key"]], int(item.get("mode") or mode))
        elif not optional:
            raise ConfigurationError(f'"{name}" has no key {item["key"]!r}')
    return found


def write_payload(folder: Path, payload: Mapping[str, Content]) -> None:
    """Show exactly these files, changed all at once: a dated folder behind the link `..data`, as the kubelet writes them."""
    current = folder / "..data"
    if current.is_symlink() and _same(current, payload):
        return
    stamp = datetime.datetime.now(datetime.UTC).strftime("..%Y_%m_%d_%H_%M_%S.%f")
    fresh = folder / stamp
    fresh.mkdir(mode=0o755)
    for path, content in payload.items():
        file = fresh / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.data)
        file.chmod(content.mode)
    old = current.readlink().name if current.is_symlink() else ""
    link = folder / "..data_tmp"
    link.unlink(missing_ok=True)  # of a node that ended in this very moment
    link.symlink_to(stamp)
    link.replace(current)
    tops = {path.partition("/")[0] for path in payload}
    for top in tops:
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(f"..data/{top}")
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    if old:
        shutil.rmtree(folder / old, ignore_errors=True)


def _same(current: Path, payload: Mapping[str, Content]) -> bool:
    files = {str(path.relative_to(current)) for path in current.rglob("*") if path.is_file()}
    return files == set(payload) and all((current / path).read_bytes() == content.data for path, content in payload.items())


def _inside(volume: Path, sub_path: str) -> Path:
    """A path inside a volume, made as a folder when it is not there."""
    found = (volume / sub_path).resolve()
    if not found.is_relative_to(volume.resolve()):
        raise ConfigurationError(f"subPath {sub_path!r} leaves its volume")
    if not found.exists():
        found.mkdir(parents=True)
        found.chmod(0o777)
    return found


async def read_sources(api: Api, pod: Object, container: Object) -> Sources:
    """The Secrets and ConfigMaps that a container's environment refers to."""
    names: dict[str, set[str]] = {"secrets": set(), "configmaps": set()}
    for entry in container.get("envFrom") or []:
        for kind, resource in (("secretRef", "secrets"), ("configMapRef", "configmaps")):
            if kind in entry:
                names[resource].add(entry[kind]["name"])
    for entry in container.get("env") or []:
        for kind, resource in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
            if kind in (entry.get("valueFrom") or {}):
                names[resource].add(entry["valueFrom"][kind]["name"])

    async def read(resource: str, name: str) -> Object | None:
        try:
            return await api.get(f"/api/v1/namespaces/{pod['metadata']['namespace']}/{resource}/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def read_all(resource: str) -> dict[str, Object | None]:
        ordered = sorted(names[resource])
        return dict(zip(ordered, await asyncio.gather(*(read(resource, name) for name in ordered)), strict=True))

    return Sources(await read_all("secrets"), await read_all("configmaps"))
