"""The .lua files: header, body and includes agree."""

from __future__ import annotations

import hashlib
import re
from importlib import resources
from typing import Final

import pytest

from toril.wire import scripts
from toril.wire.turns import ClaimState

_FOLDER: Final = resources.files("toril.wire") / "lua"
_NAMES: Final = sorted(entry.name.removesuffix(".lua") for entry in _FOLDER.iterdir() if entry.name.endswith(".lua"))
_INCLUDES: Final = sorted(entry.name.removesuffix(".lua") for entry in (_FOLDER / "include").iterdir())


def _source(name: str) -> str:
    return (_FOLDER / f"{name}.lua").read_text(encoding="utf-8")


def _header(name: str) -> str:
    return _source(name).split("]]", 1)[0]


def _body(name: str) -> str:
    return _source(name).split("]]", 1)[1]


def _code(text: str) -> str:
    return re.sub(r"--.*", "", text)


@pytest.mark.parametrize("name", _NAMES)
def test_a_script_begins_with_its_flags_and_its_name(name: str) -> None:
    first, second = _source(name).splitlines()[:2]
    assert re.fullmatch(r"#!lua( flags=(allow-oom|no-writes))?", first)
    assert second == f"--[[ {name}"
    assert re.search(r"^Returns +\S", _header(name), re.MULTILINE)


@pytest.mark.parametrize("name", _NAMES)
@pytest.mark.parametrize("kind", ["KEYS", "ARGV"])
def test_a_header_declares_all_that_the_body_reads(name: str, kind: str) -> None:
    declared = [int(number) for number in re.findall(rf"^{kind}\[(\d+)\] +\S", _header(name), re.MULTILINE)]
    used = {int(number) for number in re.findall(rf"{kind}\[(\d+)\]", _code(_body(name)))}
    assert declared == list(range(1, len(declared) + 1))
    assert used <= set(declared)


@pytest.mark.parametrize("name", _NAMES)
def test_the_loader_counts_the_keys_of_the_header(name: str) -> None:
    assert scripts.load(name).key_count == len(re.findall(r"^KEYS\[\d+\]", _header(name), re.MULTILINE)) > 0


@pytest.mark.parametrize("name", _NAMES)
def test_a_script_has_the_digest_by_which_the_server_knows_it(name: str) -> None:
    script = scripts.load(name)
    assert script.sha1 == hashlib.sha1(script.text.encode(), usedforsecurity=False).hexdigest()
    assert script is scripts.load(name)


@pytest.mark.parametrize("name", _NAMES)
def test_includes_are_put_in_once_and_none_is_left_out(name: str) -> None:
    text = scripts.load(name).text
    assert "-- include" not in text
    assert text.count("local call = redis.call") == ("include" in _source(name))
    functions = re.findall(r"^local function (\w+)", text, re.MULTILINE)
    assert len(functions) == len(set(functions))


@pytest.mark.parametrize("name", [*_NAMES, *(f"include/{part}" for part in _INCLUDES)])
def test_no_script_asks_the_server_for_the_time_or_chance(name: str) -> None:
    code = _code(_source(name))
    assert not re.search(r"""call\(\s*["']TIME["']|math\.random|os\.""", code, re.IGNORECASE)


@pytest.mark.parametrize("part", _INCLUDES)
def test_every_include_is_used(part: str) -> None:
    sources = [_source(name) for name in _NAMES] + [_source(f"include/{other}") for other in _INCLUDES]
    assert any(f"-- include {part}\n" in source for source in sources)


def test_a_missing_script_is_not_passed_over() -> None:
    with pytest.raises(FileNotFoundError):
        scripts.load("no_such_script")


def test_the_answers_of_a_claim_have_the_same_numbers_on_both_sides() -> None:
    found = re.search(r"local ([A-Z_, ]+) = ([\d, ]+)$", _source("include/claim").split("-- What a claim answers")[1], re.MULTILINE)
    assert found is not None
    answers = dict(zip(found[1].split(", "), map(int, found[2].split(", ")), strict=True))
    assert answers == {state.name: state.value for state in ClaimState}
