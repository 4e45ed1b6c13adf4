"""The page, and the command that writes it."""

import gzip
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ergon.cli.main import app
from ergon.simulate.report import About, page
from ergon.simulate.run import Job, Simulation
from ergon.simulate.settings import Settings
from tests.simulate.fleets import fleet, model, point, pool
from tests.simulate.traffic import day

SEED_FLEET = str(Path(__file__).parents[2] / "examples" / "seed-fleet")
ENCODER = (point(1, 80.0, 0.0125, 40), point(8, 400.0, 0.02, 60))
_OPEN = {"meta", "br", "line", "rect", "path", "i"}


class _Balanced(HTMLParser):
    """Counts what is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.stack: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in ("meta", "br"):
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [str(value) for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.stack.pop() == tag


@pytest.mark.parametrize("mode", ["requests", "rate"])
def test_the_page_needs_nothing_from_elsewhere_and_names_its_mode(mode: str) -> None:
    models = [model("a", *ENCODER, slo=0.3), model("<b>", *ENCODER, slo=0.3)]
    asked = day(models, [2.0, 1.0], 600, seed=1)
    simulation = Simulation(Job(fleet(models, [pool(servers=6)]), asked, Settings(), mode, 0, 0.0, 600.0))  # type: ignore[arg-type]
    results = [simulation.simulate(name) for name in ("ergon", "dedicated", "static", "bound")]
    text = page(results, About("fleet & trace", Settings(), ("budget x", 500.0), ("a remark",)))
    parser = _Balanced()
    parser.feed(text)
    assert parser.stack == []
    assert parser.addresses == []
    assert not re.search(r"https?:|<script|@import|url\(", text)
    assert ("Request mode" if mode == "requests" else "Rate mode") in text
    assert "n/&lt;b&gt;" in text
    assert "<b>" not in text
    for said in ("fleet &amp; trace", "budget x", "a remark", "dedicated", "Energy by policy", "Replicas by pool", "Demand"):
        assert said in text
    assert ("p95 of latency" in text) is (mode == "requests")


def _trace(path: Path) -> str:
    lines = ["time_s,model,input_tokens,output_tokens"]
    lines += [f"{second},support/ticket-routing,384,10" for second in range(300)]
    lines += [f"{second},documents/mistral-7b-summaries,900,120" for second in range(0, 300, 4)]
    lines += ["12,nobody/knows,1,1", "what is this"]
    with gzip.open(path, "wt") as out:
        out.write("\n".join(lines) + "\n")
    return str(path)


def test_the_command_prints_json_writes_the_page_and_tells_what_it_left_out(tmp_path: Path) -> None:
    trace, report = _trace(tmp_path / "t.csv.gz"), tmp_path / "r.html"
    done = CliRunner().invoke(
        app, ["simulate", "--fleet", SEED_FLEET, "--trace", trace, "--policy", "hpa", "-o", "json", "--report", str(report)]
    )
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["mode"] == "requests"
    (only,) = told["policies"]
    assert only["policy"] == "hpa"
    assert only["requests"] == 375
    assert only["joules"]["total"] == pytest.approx(sum(only["poolJoules"].values()))
    assert "line 377: no model 'nobody/knows' is in the fleet" in done.stderr
    assert "line 378: a line cannot be read" in done.stderr
    assert "Request mode" in report.read_text()


def test_the_table_says_the_mode(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["simulate", "--fleet", SEED_FLEET, "--trace", _trace(tmp_path / "t.csv.gz"), "--policy", "hpa", "--mode", "rate"]
    )
    assert done.exit_code == 0, done.output
    assert "rate mode: requests are a flow" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--trace", "nowhere.csv"], "nowhere.csv: is no file"),
        (["--trace", "TRACE", "--from", "tomorrow"], "--from: 'tomorrow' is no time"),
        (["--trace", "TRACE", "--from", "2d"], "nothing lies between"),
        (["--trace", "TRACE", "--policy", "general"], "--policy general needs --general"),
        (["--trace", "TRACE", "--policy", "general", "--general", "a/b"], "--general a/b: there is no such model"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, arguments: list[str], told: str) -> None:
    trace = _trace(tmp_path / "t.csv.gz")
    asked = [trace if argument == "TRACE" else argument for argument in arguments]
    done = CliRunner().invoke(app, ["simulate", "--fleet", SEED_FLEET, *asked])
    assert done.exit_code == 1
    assert told in done.stderr
    assert "Traceback" not in done.output


def test_a_file_that_ends_in_its_middle_is_told(tmp_path: Path) -> None:
    whole = Path(_trace(tmp_path / "t.csv.gz")).read_bytes()
    broken = tmp_path / "b.csv.gz"
    broken.write_bytes(whole[: len(whole) // 2])
    done = CliRunner().invoke(app, ["simulate", "--fleet", SEED_FLEET, "--trace", str(broken)])
    assert done.exit_code == 1
    assert "cannot be read to its end" in done.stderr
