#!/usr/bin/env python3
"""Render manifests/ from charts/ergon, and the chart's copy of the CRDs from crds/.

`render_manifests.py` writes; with `--check` it writes nothing and exits 1 where a file differs. Needs helm (scripts/tools.py).
"""

import re
import subprocess
import sys
from pathlib import Path

from tools import ToolError, find_tool

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "charts" / "ergon"
MANIFESTS = ROOT / "manifests"
NAMESPACE = "ergon-system"
HEADER = "# Rendered from charts/ergon by scripts/render_manifests.py: change it there.\n"
# Only Helm may say that Helm manages an object.
HELM_ONLY = re.compile(r"^\s*(helm\.sh/chart:|app\.kubernetes\.io/managed-by:|# Source: ).*\n", re.MULTILINE)


def helm_template(*args: str) -> str:
    """What `helm template` prints for the chart, less what only Helm may say. Raises ToolError with helm's own message."""
    command = [str(find_tool("helm")), "template", "ergon", str(CHART), "--namespace", NAMESPACE, *args]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ToolError(f"helm template failed: {done.stderr.strip()}")
    documents = (document.strip("\n") for document in re.split(r"^---\n", HELM_ONLY.sub("", done.stdout), flags=re.MULTILINE))
    return "---\n".join(f"{document}\n" for document in documents if document.strip())


def crd_copies() -> dict[Path, str]:
    """The chart's copy of every CRD, byte for byte."""
    return {CHART / "files" / "crds" / path.name: path.read_text() for path in sorted((ROOT / "crds").glob("*.yaml"))}


def rendered() -> dict[Path, str]:
    """Every rendered file of manifests/ with its content."""
    files: dict[Path, str] = {}
    if list((CHART / "files" / "crds").glob("*.yaml")):
        crds = helm_template("--set", "crds.keep=false", "--show-only", "templates/crds.yaml")
        files[MANIFESTS / "crds" / "crds.yaml"] = crds
    files[MANIFESTS / "base" / "operator.yaml"] = helm_template("--set", "crds.enabled=false")
    local = MANIFESTS / "overlays" / "local"
    files[local / "operator.yaml"] = helm_template("--set", "crds.enabled=false", "--values", str(local / "values.yaml"))
    return {path: HEADER + text for path, text in files.items()}


def differences(wanted: dict[Path, str], folder: Path | None = None) -> list[Path]:
    """Files that are missing or differ, and YAML files in the folder that nobody wants."""
    stale = set(folder.glob("*.yaml")) - set(wanted) if folder else set()
    return sorted(stale | {path for path, text in wanted.items() if not path.is_file() or path.read_text() != text})


def write(wanted: dict[Path, str], changed: list[Path]) -> None:
    """Make the changed files what is wanted."""
    for path in changed:
        if path in wanted:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
        else:
            path.unlink()


def main(arguments: list[str]) -> int:
    """Write or check everything; the exit status."""
    check = arguments == ["--check"]
    if arguments and not check:
        sys.stderr.write("usage: render_manifests.py [--check]\n")
        return 2
    changed: list[Path] = []
    try:
        # The copies first: the manifests are rendered from them.
        for make, folder in ((crd_copies, CHART / "files" / "crds"), (rendered, None)):
            wanted = make()
            differing = differences(wanted, folder)
            changed += differing
            if not check:
                write(wanted, differing)
    except ToolError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    for path in changed:
        sys.stdout.write(f"{'differs' if check else 'written'}: {path.relative_to(ROOT)}\n")
    if check and changed:
        sys.stderr.write("manifests are not what the chart renders; run scripts/render_manifests.py and commit\n")
    return 1 if check and changed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
