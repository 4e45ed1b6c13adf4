"""Files as `ergon plan` reads them: paths, folders, streams, and what is wrong with them in one line each."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from ergon.cli.plan_files import Unreadable, documents_of, read_paths, read_value
from ergon.fleet.documents import Document, Problem


def contents(text: str) -> list[Any]:
    return [item.content if isinstance(item, Document) else str(item) for item in documents_of(text, "f.yaml")]


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_folders_are_read_through_in_order_hidden_ones_left_out(tmp_path: Path) -> None:
    write(tmp_path, b_yaml="b: 1", a_yml="a: 1", c_json='{"c": 1}', sub__d_yaml="d: 1", x_txt="x: 1", README_md="# no")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "hidden.yaml").write_text("h: 1")
    (tmp_path / ".hidden.yaml").write_text("h: 1")
    reading = read_paths([str(tmp_path)])
    assert [document.content for document in reading.documents] == [{"a": 1}, {"b": 1}, {"c": 1}, {"d": 1}]
    assert reading.documents[3].where == f"{tmp_path}/sub/d.yaml, document 1"


def test_a_file_named_is_read_whatever_its_ending_and_once(tmp_path: Path) -> None:
    write(tmp_path, fleet_txt="a: 1", b_yaml="b: 1")
    reading = read_paths([str(tmp_path / "fleet.txt"), str(tmp_path), str(tmp_path / "b.yaml"), f"{tmp_path}/../{tmp_path.name}"])
    assert [document.content for document in reading.documents] == [{"a": 1}, {"b": 1}]


def test_streams_are_counted_without_the_empty_parts() -> None:
    text = "# a licence\n---\na: 1\n---\n---\n# nothing\n---\nb: 2\n...\n---\nc: 3\n"
    assert [item.where for item in documents_of(text, "f.yaml")] == [f"f.yaml, document {n}" for n in (1, 2, 3)]
    assert contents(text) == [{"a": 1}, {"b": 2}, {"c": 3}]


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n---\n"])
def test_nothing_is_no_document(text: str) -> None:
    assert contents(text) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"a": [1, 2.5, null, true]}', [{"a": [1, 2.5, None, True]}]),
        ("{a: 1, b: x}", [{"a": 1, "b": "x"}]),
        ('{"a": 1}\n---\n{"b": 1}', [{"a": 1}, {"b": 1}]),
        ("[1, 2]", [[1, 2]]),
        ("day: 2026-11-24\ntime: 2026-11-24T00:00:00Z", [{"day": "2026-11-24", "time": "2026-11-24T00:00:00Z"}]),
        ("[1e6, 1.5e-3, .5, 5., -2, 0x1F, 010, 1_000, 0]", [[1e6, 1.5e-3, 0.5, 5.0, -2, 31, 8, 1000, 0]]),
        ("[1:30, 1.2.3, 0x, e6, '7', 1e, .]", [["1:30", "1.2.3", "0x", "e6", "7", "1e", "."]]),
        ("[.inf, -.inf, yes, ~]", [[float("inf"), float("-inf"), True, None]]),
        ("base: &b {x: 1}\nmore: {<<: *b, y: 2}", [{"base": {"x": 1}, "more": {"x": 1, "y": 2}}]),
        ("text: |\n  one\n   --- no\n", [{"text": "one\n --- no\n"}]),
    ],
)
def test_values_are_those_that_kubernetes_reads(text: str, expected: list[Any]) -> None:
    assert contents(text) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [1\n", "document 1: is not valid YAML: did not find expected"),
        ("a: 1\n---\n\nb: {c: 1,\n  d: }}\n", "document 2: is not valid YAML"),
        ("a: 1\na: 2\n", "key 'a' is there twice in one map (line 1)"),
        ("x: 1\n---\nspec:\n  a: 1\n  a: 2\n", "key 'a' is there twice in one map (line 4)"),
        ('{"a": 1, "b": 2, "b": 3}', "key 'b' is there twice in one map"),
        ("a: !Ref b", "could not determine a constructor for the tag '!Ref' (line 1)"),
        ("{{ if .Values.x }}\na: 1\n{{ end }}", "is not valid YAML"),
        ("a:\tb\n\t- c", "is not valid YAML"),
        ("? [a, b]\n: c", "is not valid YAML"),
        ("a: 99999-99", None),
        ("\0", "is not valid YAML"),
        ("[" * 5000, "is not valid YAML"),
    ],
)
def test_what_is_not_yaml_is_one_line(text: str, says: str | None) -> None:
    problems = [item for item in documents_of(text, "f.yaml") if isinstance(item, Problem)]
    assert len(problems) == (says is not None)
    for problem in problems:
        assert str(says) in str(problem)
        assert str(problem).startswith("f.yaml, document ")
        assert "\n" not in str(problem)


def test_the_other_documents_of_a_stream_are_read() -> None:
    assert contents("a: 1\n---\nb: [\n---\nc: 1\n")[::2] == [{"a": 1}, {"c": 1}]


@pytest.mark.parametrize(("data", "says"), [(b"\xff\xfe\x00", "is no text in UTF-8"), (b"a: \xe9", "is no text in UTF-8")])
def test_bytes_that_are_no_text(tmp_path: Path, data: bytes, says: str) -> None:
    (tmp_path / "f.yaml").write_bytes(data)
    with pytest.raises(Unreadable, match=says):
        read_paths([str(tmp_path)])


def test_a_byte_order_mark_is_not_content(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"a": 1}).encode())
    assert read_value(str(tmp_path / "f.json")) == {"a": 1}


def test_paths_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"absent\.yaml: cannot be read \(No such file or directory\)"):
        read_paths([str(tmp_path / "absent.yaml")])
    (tmp_path / "loop.yaml").symlink_to(tmp_path / "loop.yaml")
    with pytest.raises(Unreadable, match=r"loop\.yaml: cannot be read"):
        read_paths([str(tmp_path)])


def test_what_is_no_file_in_a_folder_is_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "folder.yaml").mkdir()
    assert read_paths([str(tmp_path)]).documents == []


@pytest.mark.parametrize(("text", "count"), [("", 0), ("a: 1\n---\nb: 1", 2)])
def test_one_value_is_one_document(tmp_path: Path, text: str, count: int) -> None:
    (tmp_path / "f.yaml").write_text(text)
    with pytest.raises(Unreadable, match=f"holds {count} documents, where one is read"):
        read_value(str(tmp_path / "f.yaml"))
