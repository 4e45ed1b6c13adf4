"""Where binaries come from: what runs is taken, what is broken is replaced, what cannot be reached fails fast."""

import hashlib
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from aiohttp import web
from rich.console import Console

from ergon.local import binaries, gobuild, lifecycle, triton_env
from ergon.local.download import DownloadError, expected_checksum, fetch, fetch_member, require_name
from ergon.local.progress import Progress, Step
from ergon.local.state import Layout, LocalError


def program(path: Path, words: str, status: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{words}'\nexit {status}\n")
    path.chmod(0o755)
    return path


def fill(folder: Path, kubernetes: str = "Kubernetes v1.36.3", etcd: str = "etcd Version: 3.6.8") -> Path:
    for name in binaries.NAMES:
        program(folder / name, etcd if name == "etcd" else kubernetes)
    return folder


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without a control plane anywhere."""
    (tmp_path / "bin").mkdir()
    for tool in ("sh", "uname"):
        found = Path("/bin") / tool
        (tmp_path / "bin" / tool).symlink_to(found)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return tmp_path


def quiet() -> Progress:
    return Progress(Console(file=io.StringIO()))


def cache(bare: Path) -> Path:
    return bare / "cache" / "ergon" / "controlplane" / f"{binaries.KUBERNETES_VERSION}-{binaries.ETCD_VERSION}"


def test_assets_come_first(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(bare / "bin")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(fill(bare / "assets")))
    assert binaries.provide(quiet())["etcd"] == bare / "assets" / "etcd"


def test_wrong_assets_are_an_error_not_a_detour(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(bare / "nowhere"))
    with pytest.raises(LocalError, match="KUBEBUILDER_ASSETS"):
        binaries.provide(quiet())


def test_path_comes_next_and_the_cache_after_it(bare: Path) -> None:
    fill(cache(bare))
    assert binaries.provide(quiet())["etcd"] == cache(bare) / "etcd"
    fill(bare / "bin")
    assert binaries.provide(quiet())["etcd"] == bare / "bin" / "etcd"


@pytest.mark.parametrize(
    ("kubernetes", "etcd"),
    [("Kubernetes v1.20.0", "etcd Version: 3.6.8"), ("Kubernetes v1.36.3", "etcd Version: 3.4.0"), ("no words", "3.6.8")],
)
def test_what_is_too_old_or_mute_is_not_taken(tmp_path: Path, kubernetes: str, etcd: str) -> None:
    fill(tmp_path, kubernetes, etcd)
    assert not binaries.usable({name: tmp_path / name for name in binaries.NAMES})


def test_mixed_minor_versions_are_not_taken(tmp_path: Path) -> None:
    fill(tmp_path)
    program(tmp_path / "kube-scheduler", "Kubernetes v1.35.0")
    assert not binaries.usable({name: tmp_path / name for name in binaries.NAMES})


def test_a_broken_cache_is_filled_anew(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(cache(bare))
    (cache(bare) / "kube-apiserver").write_bytes(b"cut off")

    def download(folder: Path, _: Progress) -> None:
        fill(folder)

    monkeypatch.setattr(binaries, "_download", download)
    assert binaries.version_of(binaries.provide(quiet())["kube-apiserver"]) == (1, 36)


def test_without_any_way_the_line_says_what_to_do(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(folder: Path, _: Progress) -> None:
        raise DownloadError(f"the release cannot be reached for {folder.name}")

    def fail(folder: Path, _: Progress) -> None:
        raise gobuild.BuildError(f"Go is missing for {folder.name}")

    monkeypatch.setattr(binaries, "_download", refuse)
    monkeypatch.setattr(gobuild, "build", fail)
    with pytest.raises(LocalError, match=r"set KUBEBUILDER_ASSETS .*cannot be reached.*Go is missing"):
        binaries.provide(quiet())


def test_an_old_go_is_not_used(bare: Path) -> None:
    program(bare / "bin" / "go", "go1.21.3")
    assert gobuild.find_go() is None
    program(bare / "bin" / "go", "go1.27.0")
    assert gobuild.find_go() == str(bare / "bin" / "go")


_UV = """#!/bin/sh
if [ "$1" = venv ]; then test ! -e "$5" && /bin/mkdir -p "$5/bin"; exit; fi
printf '#!/bin/sh\\necho go1.26.1\\n' > "${6%python}go" && /bin/chmod +x "${6%python}go"
"""
# It makes no environment where a folder is already, as uv does; what it installs is a Go.


def test_a_go_whose_installation_was_interrupted_is_installed_anew(bare: Path) -> None:
    uv = program(bare / "bin" / "uv", "")
    uv.write_text(_UV)
    left = bare / "cache" / "ergon" / "go" / "bin"
    left.mkdir(parents=True)
    assert gobuild.provide_go(quiet()) == str(left / "go")


@pytest.mark.parametrize("text", ["aa\n", "bb  other\naa  etcd.tar.gz\n", "AA *etcd.tar.gz"])
def test_checksums_are_found_in_both_forms(text: str) -> None:
    assert expected_checksum(text, "etcd.tar.gz") == "aa"


def test_a_missing_checksum_is_an_error() -> None:
    with pytest.raises(DownloadError, match="no checksum"):
        expected_checksum("bb  other\n", "etcd.tar.gz")


def make_environment(folder: Path) -> None:
    for part in triton_env.part_sizes(folder):
        program(folder / part, part)
    (folder / "venv" / "bin" / "python").symlink_to(sys.executable)
    (folder / "complete.json").write_text(json.dumps(triton_env.part_sizes(folder)))


def test_an_environment_is_whole_only_with_every_part(tmp_path: Path) -> None:
    make_environment(tmp_path)
    assert triton_env.whole(tmp_path)
    with triton_env.tritonserver(tmp_path).open("r+b") as file:
        file.truncate(5)
    assert not triton_env.whole(tmp_path)


@pytest.mark.parametrize("lost", ["complete.json", "venv/bin/python", "venv/bin/rclone"])
def test_an_environment_that_lost_a_part_is_made_anew(tmp_path: Path, lost: str) -> None:
    make_environment(tmp_path)
    (tmp_path / lost).unlink()
    assert not triton_env.whole(tmp_path)


async def serve(files: dict[str, bytes]) -> tuple[web.AppRunner, str]:
    application = web.Application()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(body=files[request.path])

    for path in files:
        application.router.add_get(path, answer)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def step() -> Step:
    return Step("", None, None, Console(file=io.StringIO()))


async def test_a_download_is_placed_only_when_its_checksum_fits(tmp_path: Path) -> None:
    good, bad = b"program", b"0" * 64
    sums = hashlib.sha256(good).hexdigest().encode()
    runner, base = await serve({"/good": good, "/good.sha256": sums, "/bad": good, "/bad.sha256": bad})
    await fetch(f"{base}/good", f"{base}/good.sha256", tmp_path / "good", step())
    with pytest.raises(DownloadError, match="does not match"):
        await fetch(f"{base}/bad", f"{base}/bad.sha256", tmp_path / "bad", step())
    await runner.cleanup()
    assert (tmp_path / "good").stat().st_mode & 0o111
    assert names(tmp_path) == ["good"]


async def test_one_program_is_taken_out_of_an_archive(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo("etcd-v3/etcd")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"etcd"))
    data = packed.getvalue()
    sums = f"{hashlib.sha256(data).hexdigest()}  a.tar.gz\n".encode()
    runner, base = await serve({"/a.tar.gz": data, "/SHA256SUMS": sums})
    await fetch_member(f"{base}/a.tar.gz", f"{base}/SHA256SUMS", "etcd-v3/etcd", tmp_path / "etcd", step())
    await runner.cleanup()
    assert (tmp_path / "etcd").read_bytes() == b"etcd"


def test_a_name_that_is_not_found_fails_fast() -> None:
    with pytest.raises(DownloadError, match=r"ergon.invalid cannot be reached"):
        require_name("ergon.invalid")


async def test_a_host_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"127.0.0.1:1 cannot be reached"):
        await fetch("http://127.0.0.1:1/x", "http://127.0.0.1:1/x.sha256", tmp_path / "x", step())


def test_a_python_that_triton_has_nothing_for_is_named_before_anything_is_fetched(
    bare: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[Path] = []
    monkeypatch.setattr(binaries, "_download", lambda folder, _: fetched.append(fill(folder)))
    monkeypatch.setattr(sys, "version_info", (3, 13, 0))
    monkeypatch.setenv("XDG_STATE_HOME", str(bare / "state"))
    with pytest.raises(LocalError, match=r"needs Python 3\.11 or 3\.12.* this is 3\.13"):
        lifecycle.up(Layout.of("new"), None, quiet())
    assert not fetched


_REFUSED = """
import os, sys
from ergon.local import linux
user, group = os.getuid(), os.getgid()
linux.unshare(linux.CLONE_NEWUSER)
linux.map_identity(0, 0, user, group)
open("/proc/sys/user/max_user_namespaces", "w").write("0")
os.execv(sys.executable, [sys.executable, "-m", "ergon.local", "up", "--name", "refused"])
"""


def test_refused_user_namespaces_are_one_line_that_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    done = subprocess.run([sys.executable, "-c", _REFUSED], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1
    assert "sudo sysctl user.max_user_namespaces" in done.stderr
