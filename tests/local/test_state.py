"""Names, ports and records of clusters, and the line for machines that refuse namespaces."""

import itertools
import os
import socket
import threading
from pathlib import Path

import pytest

from ergon.local import namespaces
from ergon.local.lifecycle import DEFAULT_NODES
from ergon.local.node.addresses import PodAddresses
from ergon.local.state import ClusterRecord, Layout, LocalError, choose_ports, process_start, reserved_ports


def record(**changes: object) -> ClusterRecord:
    given = {
        "name": "x",
        "api_port": 1,
        "gateway_port": 2,
        "models": "/m",
        "cpus": 2,
        "memory_bytes": 3,
        "binaries": {"etcd": "/etcd"},
        "triton_environment": "/t",
        "nodes": DEFAULT_NODES,
    }
    return ClusterRecord(**{**given, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["", "A", "../x", "a" * 60, "-a", "a/b"])
def test_names_never_leave_the_state_folder(name: str) -> None:
    with pytest.raises(LocalError, match="cluster name"):
        Layout.of(name)


def test_the_state_folder_follows_the_standard(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert Layout.of("a").root == tmp_path / "ergon" / "a"


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    record().save(tmp_path / "r")
    assert ClusterRecord.load(tmp_path / "r") == record()


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", '{"nodes": [1]}'])
def test_a_record_that_a_crash_has_cut_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "r").write_text(text)
    assert ClusterRecord.load(tmp_path / "r") is None


def test_a_recycled_pid_is_not_alive() -> None:
    start = process_start(os.getpid())
    assert record(supervisor_pid=os.getpid(), supervisor_start=start).alive
    assert not record(supervisor_pid=os.getpid(), supervisor_start="1").alive
    assert not record().alive


def test_ports_are_the_same_again_and_never_taken_ones() -> None:
    first = choose_ports("some-name")
    assert choose_ports("some-name") == first
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", first[0]))
        taken.listen()
        assert first[0] not in choose_ports("some-name")


def test_two_clusters_that_start_at_once_get_ports_of_their_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wanted = choose_ports("one")
    twin = next(name for name in map("c{}".format, itertools.count()) if choose_ports(name) == wanted)
    with reserved_ports("one") as ports:
        layout = Layout.of("one")
        layout.root.mkdir(parents=True)
        record(api_port=ports[0], gateway_port=ports[1]).save(layout.record)
    with reserved_ports(twin) as others:
        assert not set(ports) & set(others)
    with reserved_ports("one") as again:
        assert again == ports, "its own record takes nothing from it"


def test_a_second_command_waits_for_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    order: list[str] = []
    layout = Layout.of("a")

    def second() -> None:
        with layout.lock():
            order.append("second")

    with layout.lock():
        thread = threading.Thread(target=second)
        thread.start()
        order.append("first")
    thread.join(timeout=10)
    assert order == ["first", "second"]
    assert not layout.lock_file.exists()


def test_pod_addresses_are_not_reused_soon() -> None:
    addresses = PodAddresses()
    first = addresses.take()
    addresses.free(first)
    assert first not in {addresses.take() for _ in range(1000)}


@pytest.mark.parametrize(
    ("setting", "value", "remedy"),
    [
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces="),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "kernel.apparmor_restrict_unprivileged_userns=0"),
        ("", "", "seccomp"),
    ],
)
def test_a_refusal_names_the_setting_that_refuses(setting: str, value: str, remedy: str) -> None:
    assert remedy in namespaces.refusal(lambda path: value if path == setting else "")
