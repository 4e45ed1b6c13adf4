"""What a trace may hold, and what is told of one that is wrong."""

from collections.abc import Iterable

import numpy as np
import pytest

from ergon.simulate import traces
from ergon.simulate.traces import BadTrace, ModelNames, TraceFile, Warnings, join, read_chunks
from ergon.simulate.workload import drawn_from_rates, read_rates, read_requests
from tests.simulate.fleets import model, point

NAMES = ModelNames(["n/a", "n/b", "o/b"])
PLAIN = "time_s,model,input_tokens,output_tokens\n"


def file(text: str, name: str = "t.csv") -> TraceFile:
    return TraceFile(name, lambda: iter(text.splitlines(keepends=True)))


def read(*files: TraceFile) -> tuple[traces.Chunk, list[str]]:
    warnings = Warnings()
    return join(list(read_chunks(list(files), NAMES, warnings))), warnings.sentences()


def test_requests_are_read_with_their_tokens() -> None:
    chunk, told = read(file(PLAIN + "0.5,n/a,10,20\n1.5,n.b,1,2\n"))
    assert chunk.seconds.tolist() == [0.5, 1.5]
    assert chunk.model.tolist() == [0, 1]
    assert (chunk.input_tokens.tolist(), chunk.output_tokens.tolist()) == ([10, 1], [20, 2])
    assert not told


def test_a_name_alone_is_enough_where_only_one_model_has_it() -> None:
    chunk, told = read(file("time_s,model\n1,a\n2,b\n"))
    assert chunk.model.tolist() == [0]
    assert told == ["t.csv, line 3: no model 'b' is in the fleet; its lines are left out"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        pytest.param(
            "1,x\n2,x\n3,a\n", "line 2: no model 'x' is in the fleet; its lines are left out (2 times)", id="unknown model"
        ),
        pytest.param("1,a\nsoon,a\n", "line 3: a line cannot be read and is left out", id="no number"),
        pytest.param("1,a\n2\n", "line 3: a line cannot be read and is left out", id="a column is missing"),
        pytest.param("1,a\nnan,a\n", "line 3: a line cannot be read and is left out", id="not a number"),
        pytest.param("1,a\n\x00\x01\n", "line 3: a line cannot be read and is left out", id="rubbish"),
        pytest.param("1,a\n99999,a\n", "no line for 27.8 hours, from 1 s on; taken as no requests", id="a hole"),
    ],
)
def test_what_is_wrong_is_told_with_its_place_and_counted(text: str, told: str) -> None:
    chunk, sentences = read(file("time_s,model\n" + text))
    assert len(chunk) >= 1
    assert len(sentences) == 1
    assert told in sentences[0]


def test_empty_lines_mean_nothing() -> None:
    assert read(file("time_s,model\n1,a\n\n2,a\n"))[1] == []


@pytest.mark.parametrize(
    ("header", "told"),
    [
        ("seconds,model\n1,a\n", "t.csv, line 1: no column time_s"),
        ("time_s,name\n1,a\n", "t.csv, line 1: no column model"),
        ("", "t.csv, line 1: no column time_s"),
    ],
)
def test_a_header_that_is_none_is_an_error_that_says_what_to_write(header: str, told: str) -> None:
    with pytest.raises(BadTrace, match="requests_per_s for rates") as error:
        read(file(header))
    assert told in str(error.value)


def test_files_of_two_kinds_do_not_go_together() -> None:
    with pytest.raises(BadTrace, match=r"t\.csv and u\.csv: one holds requests and another rates"):
        read(file("time_s,model\n1,a\n"), file("time_s,model,requests_per_s\n1,a,2\n", "u.csv"))


def test_disorder_within_the_buffer_is_put_right(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "BLOCK", 8)
    times = np.arange(100.0)
    for start in range(0, 96, 8):
        times[start : start + 8] = times[start : start + 8][::-1]
    text = "time_s,model\n" + "".join(f"{seconds},a\n" for seconds in times)
    chunk, told = read(file(text))
    assert chunk.seconds.tolist() == list(range(100))
    assert not told


def test_a_line_that_is_far_too_late_is_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "BLOCK", 8)
    text = "time_s,model\n" + "".join(f"{seconds},a\n" for seconds in [*range(40), 3, 4, *range(40, 60)])
    chunk, told = read(file(text))
    assert len(chunk) == 60
    assert told == ["t.csv: a line comes more than 8 lines too late and is left out (2 times)"]


def test_several_files_are_one_stream_in_the_order_of_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "BLOCK", 8)
    even = "time_s,model\n" + "".join(f"{seconds},a\n" for seconds in range(0, 100, 2))
    odd = "time_s,model\n" + "".join(f"{seconds},n/b\n" for seconds in range(1, 60, 2))
    warnings = Warnings()
    chunks = list(read_chunks([file(even), file(odd, "u.csv")], NAMES, warnings))
    together = np.concatenate([chunk.seconds for chunk in chunks])
    assert together.tolist() == sorted([*range(0, 100, 2), *range(1, 60, 2)])


def test_a_long_trace_is_streamed_and_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are made as they are read: no more than a few blocks of them are ever ahead."""
    monkeypatch.setattr(traces, "BLOCK", 1000)
    given, taken, most = 0, 0, 0

    def lines() -> Iterable[str]:
        nonlocal given, most
        yield "time_s,model\n"
        for number in range(50_000):
            given += 1
            most = max(most, given - taken)
            yield f"{number},a\n"

    for chunk in read_chunks([TraceFile("long", lines)], NAMES, Warnings()):
        taken += len(chunk)
    assert taken == 50_000
    assert most <= 4 * 1000


def test_rates_hold_for_a_step_of_the_file_and_nothing_is_asked_in_a_hole() -> None:
    models = (model("a", point(1, 10.0)), model("b", point(1, 10.0)))
    text = "time_s,model,requests_per_s\n0,a,1\n600,a,2\n1800,a,3\n"
    workload = read_rates(models, lambda: read_chunks([file(text)], NAMES, Warnings()), 60.0)
    asked = workload.steps.requests[:, 0] / 60
    assert asked[:10].tolist() == [1.0] * 10
    assert asked[10:20].tolist() == [2.0] * 10
    assert asked[20:30].tolist() == [0.0] * 10
    assert asked[30:40].tolist() == [3.0] * 10
    assert len(asked) == 40


def test_requests_drawn_from_rates_keep_the_rates_and_owe_all_to_the_seed() -> None:
    models = (model("a", point(1, 10.0)),)
    text = "time_s,model,requests_per_s\n" + "".join(f"{600 * step},a,{5 + step}\n" for step in range(6))
    workload = read_rates(models, lambda: read_chunks([file(text)], ModelNames(["n/a"]), Warnings()), 60.0)
    drawn = [join(list(drawn_from_rates(workload, seed).chunks())) for seed in (1, 1, 2)]  # type: ignore[misc]
    assert drawn[0].seconds.tolist() == drawn[1].seconds.tolist() != drawn[2].seconds.tolist()
    counts = np.histogram(drawn[0].seconds, bins=6, range=(0, 3600))[0]
    assert counts == pytest.approx([600 * (5 + step) for step in range(6)], rel=0.1)


def test_a_model_that_counts_tokens_needs_them() -> None:
    models = (model("a", point(1, 10.0, tokens=True)),)
    with pytest.raises(BadTrace, match=r"n/a counts tokens .* add the columns"):
        read_requests(models, lambda: read_chunks([file("time_s,model\n1,a\n")], ModelNames(["n/a"]), Warnings()), 60.0)


def test_a_trace_without_a_known_request_is_an_error() -> None:
    with pytest.raises(BadTrace, match="holds no request of a model of the fleet"):
        read_requests((model("a", point(1, 10.0)),), lambda: read_chunks([file("time_s,model\n1,x\n")], NAMES, Warnings()), 60.0)
