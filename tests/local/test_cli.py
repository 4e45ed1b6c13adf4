"""What the command line says where there is no cluster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ERGON = Path(sys.executable).with_name("ergon")


@pytest.mark.parametrize("command", [["logs"], ["logs", "kube-apiserver"], ["status"], ["env"], ["exec", "--", "true"]])
def test_a_cluster_that_is_not_there_is_one_line_and_a_failure(command: list[str], tmp_path: Path) -> None:
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "ERGON_CLUSTER": "absent"}
    done = subprocess.run([ERGON, "local", *command], env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "ergon: cluster 'absent' is not up: run `ergon local up --name absent`\n"


def test_a_folder_for_clusters_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "file")}
    for command in ([ERGON, "local"], [sys.executable, "-m", "ergon.local"]):
        done = subprocess.run([*command, "up"], env=environment, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 1
        assert done.stderr.startswith(f"ergon: {tmp_path}/file/ergon")
        assert done.stderr.endswith(": Not a directory\n")
        assert done.stderr.count("\n") == 1


def test_a_cluster_that_did_not_come_up_still_shows_its_last_words(tmp_path: Path) -> None:
    logs = tmp_path / "ergon" / "broken" / "logs"
    logs.mkdir(parents=True)
    (logs / "etcd.log").write_text("one\ntwo\nthree\nno space left\n")
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
    command = [ERGON, "local", "logs", "--name", "broken"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "etcd: two\netcd: three\netcd: no space left\n")
