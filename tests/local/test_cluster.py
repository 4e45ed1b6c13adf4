"""The cluster itself: up, up again, what it shows, what a crash and `down` leave, and nodes that die."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ergon.local.node.process import ContainerProcess, ProcessSpec
from ergon.local.state import ClusterRecord, Layout
from tests.local.kube import Kube, container, is_ready, pod

pytestmark = pytest.mark.cluster


def local(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ergon.local", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)


def processes_of(layout: Layout) -> list[str]:
    """Processes that mention the cluster's folder or are its supervisor."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes().decode(errors="replace").replace("\0", " ")
        except OSError:
            continue
        if str(layout.root) in words or f"ergon.local.supervisor {layout.name} " in words:
            found.append(words)
    return found


@pytest.fixture
def other() -> Iterator[Layout]:
    """A second cluster, which the test may break."""
    layout = Layout.of(f"other-{os.getpid()}")
    assert local("up", "--name", layout.name).returncode == 0
    yield layout
    local("down", "--name", layout.name)


def test_up_again_changes_nothing_and_status_shows_all(kube: Kube) -> None:
    layout = Layout.of(kube.name)
    before = ClusterRecord.load(layout.record)
    again = kube.local("up")
    assert again.returncode == 0, again.stderr
    assert "up already" in again.stdout
    assert ClusterRecord.load(layout.record) == before
    shown = kube.local("status").stdout
    for words in ("kube-apiserver", "network", "gpu-0", "4 nvidia.com/gpu", "simulated", "http://127.0.0.1:"):
        assert words in shown
    assert kube.local("logs", "kube-scheduler", "--tail=2").stdout.count("\n") == 2


def test_env_is_what_a_shell_can_eval(kube: Kube) -> None:
    words = kube.local("env").stdout
    script = f'{words}\nprintf "%s %s" "$(kubectl get namespace kube-system -o name)" "$ERGON_GATEWAY"; test -d "$ERGON_MODELS"'
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True, check=False, timeout=30)
    assert re.fullmatch(r"namespace/kube-system http://127\.0\.0\.1:\d+", done.stdout), done.stderr


def test_exec_is_inside_and_gives_the_commands_status(kube: Kube) -> None:
    assert kube.inside("sh", "-c", "exit 7").returncode == 7
    assert "10.96.0.10" in kube.inside("cat", "/etc/resolv.conf").stdout
    assert kube.inside("kubectl", "auth", "whoami").returncode == 0
    missing = kube.inside("no-such-program")
    assert missing.returncode == 127
    assert "no-such-program" in missing.stderr


def test_unknown_clusters_and_nodes_are_one_line(kube: Kube) -> None:
    for done in (local("status", "--name", "nobody"), kube.local("node", "stop", "nobody")):
        assert done.returncode == 1
        assert done.stderr.startswith("ergon: ")
        assert done.stderr.count("\n") == 1


def test_a_cluster_that_crashed_is_cleared_away_and_down_leaves_nothing(other: Layout) -> None:
    record = ClusterRecord.load(other.record)
    assert record is not None
    os.kill(record.supervisor_pid, signal.SIGKILL)
    deadline = time.monotonic() + 20
    while processes_of(other):
        assert time.monotonic() < deadline, "its processes outlive the supervisor"
        time.sleep(0.1)
    assert "is not up" in local("status", "--name", other.name).stderr
    again = local("up", "--name", other.name)
    assert again.returncode == 0, again.stderr
    fresh = ClusterRecord.load(other.record)
    assert fresh is not None
    assert (fresh.api_port, fresh.gateway_port) == (record.api_port, record.gateway_port)
    assert local("down", "--name", other.name).returncode == 0
    assert processes_of(other) == []
    assert not other.root.exists()
    assert str(other.root) not in Path("/proc/self/mountinfo").read_text()
    assert "not up" in local("down", "--name", other.name).stdout


def test_a_component_that_dies_is_started_again(kube: Kube) -> None:
    kube.apply(pod("stays", "sleep", "600"))
    kube.ready("stays")
    assert kube.inside("pkill", "-KILL", "-f", f"ergon.local.[n]etwork {kube.name}").returncode == 0
    deadline = time.monotonic() + 20
    while kube.inside("getent", "hosts", "kubernetes.default").returncode:
        assert time.monotonic() < deadline
    assert is_ready(kube.get("pod", "stays"))


def test_a_dead_node_is_noticed_and_comes_back(kube: Kube) -> None:
    volumes = [{"name": "disk", "emptyDir": {}}, {"name": "memory", "emptyDir": {"medium": "Memory"}}]
    spec = {"nodeSelector": {"ergon.dev/accelerator": "npu"}, "terminationGracePeriodSeconds": 1, "volumes": volumes}
    mounts = [{"name": name, "mountPath": f"/{name}"} for name in ("disk", "memory")]
    script = "echo x >>/disk/runs; echo x >>/memory/runs; cat /disk/runs /memory/runs | wc -l; exec sleep 86399"
    kube.apply(pod("there", "sh", "-c", script, spec=spec, volumeMounts=mounts))
    before = kube.ready("there")
    assert before["spec"]["nodeName"] == "npu-0"
    assert kube.local("node", "stop", "npu-0").returncode == 0
    try:
        assert "sleep 86399" not in kube.inside("ps", "ax").stdout
        kube.until("node", "npu-0", lambda node: not is_ready(node))
        kube.until("pod", "there", lambda item: not is_ready(item))
    finally:
        assert kube.local("node", "start", "npu-0").returncode == 0
    kube.until("node", "npu-0", is_ready)
    after = kube.until("pod", "there", lambda item: is_ready(item) and container(item)["restartCount"] == 1)
    assert after["status"]["podIP"] != before["status"]["podIP"]
    assert kube.kubectl("logs", "there") == "3\n", "its disk has seen two runs, its memory one"


def test_a_simulated_accelerator_is_scheduled_by_its_resource(kube: Kube) -> None:
    def wants(name: str, count: int) -> dict:
        return pod(name, "sleep", "600", resources={"limits": {"google.com/tpu": count}})

    kube.apply(wants("first", 3), wants("second", 3))
    kube.until("pod", "first", lambda _: sum(is_ready(kube.get("pod", name)) for name in ("first", "second")) == 1)
    placed = [kube.get("pod", name)["spec"].get("nodeName") for name in ("first", "second")]
    assert sorted(placed, key=str) == [None, "tpu-0"]


def test_a_cordoned_node_takes_no_pods(kube: Kube) -> None:
    kube.kubectl("cordon", "npu-0")
    try:
        kube.apply(pod("waits", "sleep", "600", spec={"nodeSelector": {"ergon.dev/accelerator": "npu"}}))
        found = kube.until("pod", "waits", lambda item: item.get("status", {}).get("conditions"))
        assert found["status"]["conditions"][0]["reason"] == "Unschedulable"
    finally:
        kube.kubectl("uncordon", "npu-0")
    kube.ready("waits")


async def test_a_program_that_is_not_there_is_a_start_error(tmp_path: Path) -> None:
    """The starter's words reach the caller, also where it may make no mounts at all."""
    spec = ProcessSpec(str(tmp_path / "nowhere"), (), "h", ["x"], {})
    with pytest.raises(Exception, match="cannot build the container's root"):
        await ContainerProcess.start(spec, tmp_path / "log")
