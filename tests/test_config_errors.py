"""Errors say what, where and what to do; configuration names the wrong key and the nearest known one; draws repeat."""

from __future__ import annotations

import inspect
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError, field_validator

from isthmus import errors
from isthmus.config import Settings, parse, read_toml
from isthmus.errors import InputError, IsthmusError, SpecError, nearest
from isthmus.log import logger, progress
from isthmus.rng import generator

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, IsthmusError)]


class Column(Settings):
    """A nested part."""

    name: str
    scale: float = Field(default=1.0, gt=0)


class Source(Settings):
    """A part of a list."""

    platform: str
    columns: dict[str, Column] = Field(default_factory=dict)
    first: Column | None = None
    kind: str = Field(default="events", alias="type")

    @field_validator("platform")
    @classmethod
    def _short(cls, value: str) -> str:
        if len(value) > 5:
            raise ValueError("is too long")
        return value


class Spec(Settings):
    """The whole."""

    name: str = "x"
    source: tuple[Source, ...] = ()


@pytest.mark.parametrize("kind", TREE)
def test_every_error_is_in_one_tree_with_its_code_and_status(kind: type[IsthmusError]) -> None:
    error = kind("no column 'user'.", where=Path("a.csv"), fix="name it")
    assert str(error) == "a.csv: no column 'user'. Fix: name it"
    assert (error.what, error.where, error.fix) == ("no column 'user'", "a.csv", "name it")
    assert str(kind("alone")) == "alone"
    assert kind.exit_code in (1, 2)
    assert kind.exit_code == (2 if issubclass(kind, errors.InputError) else 1)
    assert 400 <= kind.http_status < 600
    assert (kind.http_status >= 500) == (kind.exit_code == 1)
    assert inspect.getdoc(kind)


@pytest.mark.parametrize(
    ("word", "hint"),
    [("colums", " (did you mean 'columns'?)"), ("path", " (did you mean 'path'?)"), ("qqq", ""), ("", "")],
)
def test_the_nearest_word(word: str, hint: str) -> None:
    assert nearest(word, ["columns", "path"]) == hint
    assert nearest(word, []) == ""


def test_a_valid_configuration_is_frozen() -> None:
    found = parse(Spec, {"source": [{"platform": "shop", "type": "items"}]}, where="s.toml")
    assert found.source[0].kind == "items"
    with pytest.raises(ValidationError):
        found.name = "y"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"nme": 1}, r"s\.toml: unknown key 'nme' \(did you mean 'name'\?\)\. Fix: known keys: name, source"),
        ({"source": [{"platform": "a", "typ": "x"}]}, r"'source\.0\.typ' \(did you mean 'type'\?\)"),
        (
            {"source": [{"platform": "a", "first": {"name": "n", "scle": 2}}]},
            r"first\.scle' \(did you mean 'scale'\?\)",
        ),
        ({"source": [{}]}, r"missing key 'source\.0\.platform'\. Fix: add 'platform'"),
        ({"source": [{"platform": "longer"}]}, r"key 'source\.0\.platform': is too long"),
        ({"source": [{"platform": "a", "first": {"name": "n", "scale": 0}}]}, "greater than 0"),
        ({"name": 3}, "key 'name': Input should be a valid string"),
        ({"name": 3, "nme": 1}, r"unknown key 'nme'.*\(and 1 more\)"),
        ([], "should be a valid dictionary"),
    ],
)
def test_the_wrong_key_is_named_with_the_nearest_known_one(content: object, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        parse(Spec, content, where="s.toml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"name = ", "is not valid TOML"),
        (b"a = 1\na = 2", "is not valid TOML"),
        ("name = '名'".encode("gb18030"), r"is not UTF-8 text \(byte 8\)"),
        (b"\x00", "is not valid TOML"),
    ],
)
def test_toml_that_cannot_be_read(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "s.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SpecError, match=message) as caught:
        read_toml(path)
    assert str(path) in str(caught.value)
    with pytest.raises(SpecError, match="is a folder"):
        read_toml(tmp_path)


def test_toml_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_bytes("\ufeffname = '名'".encode())
    assert read_toml(tmp_path / "s.toml") == {"name": "名"}


@given(st.integers(0, 2**32), st.lists(st.text(max_size=5), max_size=3))
def test_a_generator_is_its_seed_and_purpose(seed: int, purpose: list[str]) -> None:
    first = generator(seed, *purpose).integers(0, 2**40, 4).tolist()
    assert first == generator(seed, *purpose).integers(0, 2**40, 4).tolist()
    assert first != generator(seed + 1, *purpose).integers(0, 2**40, 4).tolist()
    assert first != generator(seed, *purpose, "more").integers(0, 2**40, 4).tolist()


def test_words_of_a_purpose_are_apart() -> None:
    assert generator(1, "ab", "c").random() != generator(1, "a", "bc").random()
    with pytest.raises(InputError, match="seed -1"):
        generator(-1, "split")


def test_generators_give_the_same_numbers_on_every_machine() -> None:
    assert generator(7, "split", 1).integers(0, 1000, 5).tolist() == [339, 770, 573, 770, 811]


def test_progress_is_silent_without_a_terminal(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, logger="isthmus"):
        with progress("encode", 10) as advance:
            advance(10)
        with progress("count", None) as advance:
            advance(1)
    assert caplog.messages == ["encode: 10 steps", "count: started"]
    assert capsys.readouterr() == ("", "")
    assert logger.name == "isthmus"


def test_progress_shows_a_bar_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress("encode", 2) as advance:
        advance(2)
    shown = capsys.readouterr()
    assert "encode" in shown.err
    assert "2/2" in shown.err
    assert shown.out == ""


def test_errors_alone_import_nothing_heavy() -> None:
    code = (
        "import sys, isthmus, isthmus.errors; print(sorted({'numpy', 'polars', 'torch', 'scipy'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"
