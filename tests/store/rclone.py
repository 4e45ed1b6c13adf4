"""Real rclone processes of this test run, on loopback: the store beside a Triton, and sources to fetch from."""

import contextlib
import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tests.triton.server import free_ports

USER, PASSWORD = "operator", "the-operators-password"
ACCESS_KEY, SECRET_KEY = "models-reader", "s3cr:et;k'ey=\"{/+}"


class Rclone:
    """One rclone that listens on a port of its own."""

    def __init__(
        self, program: Path, arguments: Sequence[str], port: int, log: Path, tls: bool = False, tmpfs: Path | None = None
    ) -> None:
        self.port = port
        command = [str(program), *arguments, "--config", "/dev/null"]
        if tmpfs is not None:
            # A volume of 2 MiB, in namespaces of its own, so that it can be filled.
            mount = f'mount -t tmpfs -o size=2m tmpfs "{tmpfs}" && exec "$@"'
            command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", *command]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._log = log
        self._await_answer("https" if tls else "http")

    @property
    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _await_answer(self, scheme: str) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                urllib.request.urlopen(f"{scheme}://127.0.0.1:{self.port}/", timeout=1).close()
            except urllib.error.HTTPError:
                return
            except OSError as error:
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    return
                time.sleep(0.02)
            else:
                return
        raise AssertionError(f"rclone did not start:\n{self.log[-4000:]}")


class Sources:
    """A folder served as S3 and over HTTP; what lies in it is what models are fetched from."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.folder = folder / "buckets"
        (self.folder / "models").mkdir(parents=True)
        self._program, self._logs = program, folder
        self._running: list[Rclone] = []

    def add(self, name: str, files: dict[str, str | bytes] | None = None) -> Path:
        """Write a model directory into the bucket `models`; by default a small complete one for Python."""
        target = self.folder / "models" / name
        for path, content in (files or {"config.pbtxt": 'backend: "python"\n', "1/model.py": "pass\n"}).items():
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            (target / path).write_bytes(content.encode() if isinstance(content, str) else content)
        return target

    def serve_s3(self, *options: str, anonymous: bool = False) -> Rclone:
        keys = [] if anonymous else [f"--auth-key={ACCESS_KEY},{SECRET_KEY}"]
        return self._serve("s3", *keys, *options)

    def serve_http(self, *options: str) -> Rclone:
        return self._serve("http", *options)

    def stop(self) -> None:
        for rclone in self._running:
            rclone.stop()

    def _serve(self, kind: str, *options: str) -> Rclone:
        (port,) = free_ports(1)
        arguments = [
            "serve",
            kind,
            f"--addr=127.0.0.1:{port}",
            "--vfs-cache-mode=off",
            "--dir-cache-time=0",
            *options,
            str(self.folder),
        ]
        rclone = Rclone(self._program, arguments, port, self._logs / f"serve-{kind}-{port}.log")
        self._running.append(rclone)
        return rclone


def start_store(
    program: Path, folder: Path, certificate: Path, key: Path, port: int | None = None, tmpfs: Path | None = None
) -> Rclone:
    """`rclone rcd` as a pool's pod runs it."""
    port = port or free_ports(1)[0]
    arguments = [
        "rcd",
        f"--rc-addr=127.0.0.1:{port}",
        f"--rc-user={USER}",
        f"--rc-pass={PASSWORD}",
        f"--rc-cert={certificate}",
        f"--rc-key={key}",
        "--rc-serve",
    ]
    return Rclone(program, arguments, port, folder / "rcd.log", tls=True, tmpfs=tmpfs)


def secret_for(source: Rclone, **changes: str) -> dict[str, str]:
    """The data of a Secret for a served S3."""
    return {
        "access_key_id": ACCESS_KEY,
        "secret_access_key": SECRET_KEY,
        "endpoint": f"http://127.0.0.1:{source.port}",
    } | changes
