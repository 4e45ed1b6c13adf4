"""Planning a container's root: the host is mirrored, mount points exist, nothing of the host is touched."""

from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from ergon.local.node.mounts import Entry, Mount, Step, plan, resolve

HOST = {
    "/usr": [Entry("bin", "dir"), Entry("lib", "dir")],
    "/etc": [Entry("hosts", "file"), Entry("ssl", "dir"), Entry("mtab", "symlink", "/proc/mounts"), Entry("socket", "other")],
}
LINKS = {"/bin": "usr/bin", "/var/run": "/run"}


def listing(path: str) -> Iterable[Entry]:
    return HOST.get(path, [])


def steps(mirrors: list[str], *mounts: Mount) -> list[Step]:
    return plan(mirrors, mounts, listing, LINKS.get)


def test_a_host_folder_is_one_bind_mount() -> None:
    assert steps(["/usr"]) == [Step("dir", "/usr"), Step("bind", "/usr", "/usr", read_only=True)]


def test_a_linked_host_folder_stays_a_link() -> None:
    assert Step("symlink", "/bin", "usr/bin") in steps(["/usr", "/bin"])


def test_a_mount_point_inside_a_host_folder_makes_that_folder_virtual() -> None:
    found = steps(["/etc"], Mount("/etc/ergon", "/state/tls", read_only=True))
    assert Step("bind", "/etc", "/etc", read_only=True) not in found
    assert Step("bind", "/etc/ssl", "/etc/ssl", read_only=True) in found
    assert Step("symlink", "/etc/mtab", "/proc/mounts") in found
    assert found[-2:] == [Step("dir", "/etc/ergon"), Step("bind", "/etc/ergon", "/state/tls", read_only=True)]
    assert not any(step.path == "/etc/socket" for step in found)


def test_a_single_file_goes_over_the_hosts() -> None:
    found = steps(["/etc"], Mount("/etc/hosts", "/state/hosts", folder=False))
    assert [step for step in found if step.path == "/etc/hosts"] == [
        Step("file", "/etc/hosts"),
        Step("bind", "/etc/hosts", "/state/hosts"),
    ]


def test_links_in_mount_points_are_followed() -> None:
    found = steps([], Mount("/var/run/secrets/kubernetes.io/serviceaccount", "/token", read_only=True))
    assert found[-1].path == "/run/secrets/kubernetes.io/serviceaccount"


def test_outer_mounts_come_before_inner_ones() -> None:
    found = steps([], Mount("/models/cache", "/b"), Mount("/models", "/a"))
    assert [step.path for step in found if step.kind == "bind"] == ["/models", "/models/cache"]


def test_a_launchers_folder_shows_through_a_volume_over_its_parent() -> None:
    found = steps(["/tmp/tools"], Mount("/tmp", "/empty"))
    binds = [(step.path, step.source) for step in found if step.kind == "bind"]
    assert binds == [("/tmp", "/empty"), ("/tmp/tools", "/tmp/tools")]


def test_a_loop_of_links_ends() -> None:
    assert resolve("/a/b", {"/a": "/a"}.get).endswith("b")


SEGMENTS = st.sampled_from(["usr", "etc", "bin", "ssl", "models", "x"])
TARGETS = st.lists(SEGMENTS, min_size=1, max_size=4).map(lambda parts: "/" + "/".join(parts))


@given(st.sets(TARGETS, max_size=5), st.sets(st.sampled_from(["/usr", "/etc", "/usr/lib", "/tmp/x"]), max_size=4))
def test_every_step_has_its_parent_and_writes_go_to_no_mirror(targets: set[str], mirrors: set[str]) -> None:
    mounts = [Mount(target, "/volume") for target in targets]
    made, read_only = {"/"}, set()
    for step in plan(sorted(mirrors), mounts, listing, lambda _: None):
        parents = {step.path[:index] or "/" for index, letter in enumerate(step.path) if letter == "/"}
        if step.kind in ("dir", "file", "symlink") and step.path not in made:
            assert parents <= made
            assert not parents & read_only, "a mount point would be made inside a folder of the host"
        made.add(step.path)
        if step.kind == "bind" and step.read_only:
            read_only.add(step.path)
        elif step.kind == "bind":
            read_only = {path for path in read_only if not path.startswith(step.path)}
    assert targets <= made
