"""The main job, as a user would do it: a cluster, the operator by `kubectl apply -k`, five models, a route, real answers.

Run by `make demo`. Everything it does is a command that it prints; what it learns comes from the cluster.
"""

import json
import os
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
NAMESPACE = "demo"
READY_SECONDS = 240.0
ASLEEP_SECONDS = 90.0
SLEEPER = "content-type"
ROUTE = "assistant"
QUESTIONS = ("What is a pool?", "Why is my model not placed?", "When does a model go to sleep?", "Name three primary colors.")
SENTENCE = "On 3 May 2024 Siemens paid Anna Schmidt in Munich $2.4 million for twelve patents."
SNIPPET = "def area(radius: float) -> float:\n    import math\n    return math.pi * radius ** 2\n"
GERMAN = "Der Zug nach Hamburg hat heute leider zwanzig Minuten Verspätung."
QUESTION = "In one short sentence: why is the sky blue?"

console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)


class DemoFailed(Exception):
    """Something did not come about; the text says what and where to look."""


def say(text: str) -> None:
    """One line of progress."""
    console.print(f"[bold cyan]==>[/] {text}")


def run(*command: str, quiet: bool = False) -> str:
    """Run a command, shown as a person would type it. Raises DemoFailed with its last lines."""
    if not quiet:
        console.print(f"    [dim]$ {' '.join(command)}[/]")
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    if done.returncode:
        raise DemoFailed(f"{' '.join(command)} ended with {done.returncode}:\n{(done.stderr or done.stdout)[-1500:]}")
    return done.stdout


def kubectl(*arguments: str, quiet: bool = False) -> str:
    """kubectl against the demo's cluster."""
    return run("kubectl", *arguments, quiet=quiet)


def get(*arguments: str) -> dict[str, Any]:
    """kubectl get -o json."""
    found: dict[str, Any] = json.loads(kubectl("get", *arguments, "-o", "json", quiet=True))
    return found


def cluster_up(name: str) -> None:
    """Bring the local cluster up and take over its environment."""
    say("a local Kubernetes cluster: control plane, nodes, Gateway")
    if subprocess.run(("ergon", "local", "up", "--name", name), check=False, cwd=ROOT).returncode:
        raise DemoFailed("the local cluster did not come up; its own message stands above")
    for line in run("ergon", "local", "env", "--name", name, quiet=True).splitlines():
        key, equals, value = line.removeprefix("export ").partition("=")
        if equals and line.startswith("export "):
            os.environ[key] = os.path.expandvars(value.strip("'\""))


def install() -> None:
    """Install the operator and the demo's pools as a user would."""
    say("the operator, its gateway and four pools (cpu is real; gpu, tpu and npu are simulated), by kubectl apply -k")
    kubectl("apply", "--server-side", "-k", "manifests/crds")
    kubectl("wait", "--for=condition=Established", "--timeout=60s", "crd", "-l", "app.kubernetes.io/part-of=ergon")
    kubectl("apply", "--server-side", "-k", "manifests/overlays/local")
    for name in ("ergon", "ergon-gateway"):
        kubectl("rollout", "status", f"deployment/{name}", "-n", "ergon-system", "--timeout=120s")


def models() -> None:
    """Put the sample models where the pools see them and apply their objects."""
    say("five models that do real work, and a route over two of them")
    target = Path(os.environ["ERGON_MODELS"]) / "models"
    console.print(f"    [dim]$ cp -r examples/models {target.parent}/[/]")
    for source in sorted((ROOT / "examples" / "models").iterdir()):
        if source.is_dir():
            shutil.copytree(source, target / source.name, dirs_exist_ok=True)
    kubectl("apply", "-f", "examples/models.yaml")


def wait_ready() -> list[dict[str, Any]]:
    """Until all models are Ready, showing where each stands."""
    ends_at, last = time.monotonic() + READY_SECONDS, ""
    while True:
        found = get("sm", "-n", NAMESPACE)["items"]
        line = ", ".join(f"{m['metadata']['name']}: {condition(m, 'Ready').get('reason', 'not seen yet')}" for m in found)
        if line != last:
            console.print(f"    {line}")
            last = line
        if found and all(condition(m, "Ready").get("status") == "True" for m in found):
            return found
        if time.monotonic() > ends_at:
            raise DemoFailed(
                "not all models are Ready; see: kubectl describe sm -n demo; kubectl logs -n ergon-system deployment/ergon\n"
                + kubectl("get", "ap,sm,pods", "-A", quiet=True)
            )
        time.sleep(0.3)


def condition(obj: dict[str, Any], name: str) -> dict[str, Any]:
    """A condition of an object, empty where it has none."""
    return next((c for c in (obj.get("status") or {}).get("conditions") or () if c["type"] == name), {})


def infer(model: str, body: bytes, headers: dict[str, str] | None = None) -> dict[str, Any]:
    """One KServe v2 request to a model through the Gateway."""
    return post(f"/v2/models/{NAMESPACE}.{model}/infer", body, headers)[0]


def post(path: str, body: bytes, headers: dict[str, str] | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """One request through the Gateway: the answer and its headers. A path that is not there yet is waited for."""
    url = f"{os.environ['ERGON_GATEWAY']}{path}"
    ends_at = time.monotonic() + 30
    while True:
        try:
            request = urllib.request.Request(url, data=body, headers=headers or {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read()), {name.lower(): value for name, value in answer.headers.items()}
        except (urllib.error.URLError, ConnectionError) as error:
            if time.monotonic() > ends_at:
                raise DemoFailed(f"{url} does not answer: {error}") from error
            time.sleep(0.2)


def text_request(name: str, text: str) -> bytes:
    """A request with one string."""
    return json.dumps({"inputs": [{"name": name, "shape": [1, 1], "datatype": "BYTES", "data": [text]}]}).encode()


def binary_request(name: str, content: bytes) -> tuple[bytes, dict[str, str]]:
    """A request with raw bytes, by the protocol's binary extension (JSON carries only valid UTF-8)."""
    data = len(content).to_bytes(4, "little") + content
    head = {"name": name, "shape": [1, 1], "datatype": "BYTES", "parameters": {"binary_data_size": len(data)}}
    header = json.dumps({"inputs": [head], "parameters": {"binary_data_output": False}}).encode()
    return header + data, {"Inference-Header-Content-Length": str(len(header)), "Content-Type": "application/octet-stream"}


def outputs(answer: dict[str, Any]) -> dict[str, Any]:
    """Each output's first value by name."""
    return {output["name"]: output["data"][0] for output in answer["outputs"]}


def ask_all() -> list[tuple[str, str, str]]:
    """One real question to each model that is awake: (model, question, answer)."""
    entities = json.loads(outputs(infer("entities", text_request("TEXT", SENTENCE)))["ENTITIES"])
    language = outputs(infer("language", text_request("TEXT", GERMAN)))
    general = outputs(infer("general", text_request("PROMPT", QUESTION)))
    return [
        ("entities", SENTENCE, ", ".join(f"{e['text']} ({e['label']})" for e in entities)),
        ("language", GERMAN, f"{language['LANGUAGE']} ({language['SCORE']:.2f})"),
        ("general", QUESTION, " ".join(general["TEXT"].split())),
    ]


def ask_route() -> list[tuple[str, str, str, str]]:
    """Some questions to the route: (question, answer, models that were asked, joules)."""
    asked = []
    for question in QUESTIONS:
        answer, headers = post(f"/routes/{NAMESPACE}/{ROUTE}/v2/models/{ROUTE}/infer", text_request("PROMPT", question))
        joules = f"{float(headers['ergon-joules']):.3g} J, {headers['ergon-joules-provenance']}"
        asked.append((question, " ".join(outputs(answer)["TEXT"].split()), headers["ergon-models"], joules))
    return asked


def wake() -> tuple[str, str, str, str]:
    """Wait until the idle model is gone from its server, then ask it: (model, answer, seconds, seconds of those in loading)."""
    say(f"{SLEEPER} sleeps when nobody asks for it, and wakes when somebody does")
    ends_at = time.monotonic() + ASLEEP_SECONDS
    while True:
        model = get("sm", SLEEPER, "-n", NAMESPACE)
        if condition(model, "Ready").get("reason") == "Asleep" and not model["status"].get("placements"):
            break
        if time.monotonic() > ends_at:
            raise DemoFailed(f"{SLEEPER} does not fall asleep; see: kubectl describe sm {SLEEPER} -n {NAMESPACE}")
        time.sleep(0.3)
    console.print(kubectl("get", "sm", SLEEPER, "-n", NAMESPACE, quiet=True), soft_wrap=True, end="")
    begun = time.monotonic()
    content = outputs(infer(SLEEPER, *binary_request("CONTENT", SNIPPET.encode())))
    took = time.monotonic() - begun
    ready = wait_ready()
    cold = next(model for model in ready if model["metadata"]["name"] == SLEEPER)["status"].get("coldStart", {})
    return SLEEPER, f"{content['LABEL']} ({content['SCORE']:.2f})", f"{took:.2f}", f"{cold.get('loadSeconds', 0):.2f}"


def show_route(asked: list[tuple[str, str, str, str]], woken: tuple[str, str, str, str]) -> None:
    """Who was asked by the route, and what waking took."""
    table = Table(
        title=f"One address, {NAMESPACE}/{ROUTE}: the small model first, the general one for the rest", title_justify="left"
    )
    for column in ("asked", "answer", "models", "joules"):
        table.add_column(column)
    for row in asked:
        table.add_row(*row)
    console.print(table)
    table = Table(title="Asleep, asked and woken", title_justify="left")
    for column in ("model", "answer", "answered after s", "of these loading s"):
        table.add_column(column, justify="right" if column.endswith(" s") else "left")
    table.add_row(*woken)
    console.print(table)


def show_models(found: list[dict[str, Any]]) -> None:
    """What runs where, how long it took to get there, and where it answers."""
    table = Table(title="Models", title_justify="left")
    for column in ("model", "pool", "variant", "Ready", "fetch s", "load s", "placed to ready s", "endpoint"):
        table.add_column(column, justify="right" if column.endswith(" s") else "left")
    for model in found:
        status = model["status"]
        cold = status.get("coldStart", {})
        table.add_row(
            f"{NAMESPACE}/{model['metadata']['name']}",
            ", ".join(f"{p['pool']}-{p['server']}" for p in status["placements"]),
            ", ".join(sorted({p["variant"] for p in status["placements"]})),
            condition(model, "Ready")["status"],
            *(f"{cold.get(name, 0):.2f}" for name in ("fetchSeconds", "loadSeconds", "totalSeconds")),
            status["endpoint"],
        )
    console.print(table)


def show_answers(answers: list[tuple[str, str, str]]) -> None:
    """One real answer each."""
    table = Table(title="One real answer each, through the Gateway", title_justify="left", show_lines=True)
    for column in ("model", "asked", "answer"):
        table.add_column(column)
    for row in answers:
        table.add_row(*row)
    console.print(table)


def show_energy(found: list[dict[str, Any]]) -> None:
    """What runs where and at what energy, from the pools' figures: all assumed, since nothing here measures watts."""
    pools = {pool["metadata"]["name"]: pool for pool in get("ap")["items"]}
    table = Table(title="What runs where, and at what energy (assumed: from the profiles in the YAML)", title_justify="left")
    for column in ("pool", "class", "servers", "models", "idle W", "one more request costs"):
        table.add_column(column, justify="right" if column in ("servers", "idle W") else "left")
    for name, pool in sorted(pools.items()):
        power = pool["spec"].get("power", {})
        here = [m for m in found if any(p["pool"] == name for p in m["status"]["placements"])]
        servers = pool.get("status", {}).get("servers", {}).get("ready", 0)
        idle = servers * power.get("idleWatts", 0) + -(-servers // power.get("serversPerNode", 1)) * power.get("hostWatts", 0)
        simulated = "" if pool["metadata"].get("labels", {}).get("ergon.dev/simulated") != "true" else " (simulated)"
        table.add_row(
            name + simulated,
            pool["spec"]["accelerator"]["class"],
            str(servers),
            ", ".join(m["metadata"]["name"] for m in here) or "-",
            f"{idle * power.get('pue', 1):.0f}",
            ", ".join(f"{m['metadata']['name']} {cost(m, pool)}" for m in here) or "-",
        )
    console.print(table)


def cost(model: dict[str, Any], pool: dict[str, Any]) -> str:
    """Joules that one more request adds, (watts - idle) / requests per second at the least costly profile."""
    accelerator, power = pool["spec"]["accelerator"], pool["spec"].get("power", {})
    chosen = {p["variant"] for p in model["status"]["placements"] if p["pool"] == pool["metadata"]["name"]}
    points = [
        (profile.get("watts", power.get("busyWatts", 0)) - power.get("idleWatts", 0)) / profile["requestsPerSecond"]
        for variant in model["spec"]["variants"]
        if variant["name"] in chosen
        for profile in variant.get("profiles", ())
        if profile.get("accelerator") == accelerator["class"] and profile.get("requestsPerSecond")
    ]
    return f"{max(0.0, min(points)):.2f} J" if points else "? (no profile)"


def main() -> int:
    """The whole demo. Exit code 0 when every model answered."""
    name, began = os.environ.get("CLUSTER", "local"), time.monotonic()
    try:
        cluster_up(name)
        install()
        models()
        found = wait_ready()
        answers = ask_all()
        asked = ask_route()
        woken = wake()
        found = wait_ready()
        console.print()
        console.print(kubectl("get", "ap,sm,troute", "-A", quiet=True), soft_wrap=True)
        show_models(found)
        show_answers(answers)
        show_route(asked, woken)
        show_energy(found)
    except DemoFailed as problem:
        console.print(f"[bold red]demo:[/] {problem}")
        return 1
    say(
        f'done in {time.monotonic() - began:.0f} s. Go on with: eval "$(ergon local env --name {name})"; end with: make demo-down'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
