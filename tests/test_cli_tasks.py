"""The verbs classify and rate: the page is true, files hold what it says, and bad input ends with one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tests.pages import blocks_of, commands_of, text_of
from tests.test_cli import isthmus
from tests.test_cli_transfer import a_split, same_texts

from isthmus.data.simulate import WORLD

PAGE = text_of("tasks.md")
COMMANDS = commands_of(PAGE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split with ratings, one without, and somebody's folder."""
    folder = tmp_path_factory.mktemp("tasks")
    places = [replace(p, habits=(("view", 1.0), ("rate", 0.6))) for p in WORLD.places]
    a_split(folder, places=tuple(places), persons=50, items=80, themes=3)
    (folder / "split").rename(folder / "SPLIT")
    (folder / "bare").mkdir()
    a_split(folder / "bare", change=same_texts)
    (folder / "occupied").mkdir()
    (folder / "occupied" / "thesis.txt").write_text("mine")
    return folder


def test_the_page_is_true(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(COMMANDS) == 9
    monkeypatch.chdir(place)
    (place / "pairs.csv").write_text("platform,user,item\nsouth,谁,什么\n", encoding="utf-8")
    (place / "new.csv").write_text("platform,item,domain,title\nsouth,新,target,茶\n", encoding="utf-8")
    for command in COMMANDS:
        done = isthmus(*command.split()[1:])
        assert done.code == 0, f"{command}\n{done.out}{done.err}"
        if "--out RATED" in command or "--out CLASSED" in command:
            assert "blend" in done.out
            assert "report.html" in done.out
    rated, classed = (json.loads((place / name / "report.json").read_text()) for name in ("RATED2", "CLASSED2"))
    systems = {"blend", "mean", "bias", "knn", "content (tfidf)", "content (transferred)", "fm", "head"}
    assert {row["system"] for row in rated["errors"]} == systems
    assert {row["system"] for row in classed["errors"]} == {"blend", "majority", "tfidf", "transferred"}
    assert {row["metric"] for row in rated["errors"]} == {"mae", "mse", "rmse", "r2"}
    assert "<table>" in (place / "RATED" / "report.html").read_text()
    (program,) = blocks_of(PAGE, "python")
    space: dict[str, object] = {}
    exec(compile(program, "tasks.md", "exec"), space)
    assert pl.read_csv("ratings.csv").columns == ["platform", "user", "item", "rating", "known"]
    assert pl.read_csv("more.csv").columns == pl.read_csv("ratings.csv").columns
    assert pl.read_csv("told.csv").columns == ["platform", "item", "title", "label", "probability"]
    assert pl.read_csv("classes.csv").columns == ["platform", "item", "title", "label", "probability", "ask"]


def test_a_strategy_trains_the_model_on(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    if not Path("MODEL").is_dir():
        assert isthmus(*next(one for one in COMMANDS if " pretrain " in one).split()[1:]).code == 0
    words = ("--target", "target", "--no-read", "--least", 5, "--from", "MODEL", "--strategy", "top", "--epochs", 1)
    done = isthmus("classify", "SPLIT", *words, "--out", tmp_path / "tuned", "--json")
    assert done.code == 0, done.err
    assert set(done.json["weights"]) == {"majority", "tfidf", "transferred", "tuned"}  # type: ignore[index]


def test_pairs_and_json(place: Path, tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("platform,user,item\nsouth,谁,什么\n", encoding="utf-8")
    words = ("rate", place / "SPLIT", "--target", "target", "--no-read", "--out", tmp_path / "r", "--pairs", pairs)
    done = isthmus(*words, "--predict", tmp_path / "told.jsonl", "--json")
    assert done.code == 0, done.err
    assert {row["metric"] for row in done.json["errors"]} == {"mae", "mse", "rmse", "r2"}  # type: ignore[index]
    assert pl.read_ndjson(tmp_path / "told.jsonl").select("user", "item", "known").row(0) == ("谁", "什么", "neither")


def test_a_kept_model_says_what_it_said_at_first(place: Path, tmp_path: Path) -> None:
    kept, first, later = tmp_path / "kept", tmp_path / "first.csv", tmp_path / "later.csv"
    done = isthmus(*(word.replace("{}", str(place)) for word in RATE[:-1]), tmp_path / "r", "--predict", first,
                   "--save", kept)  # fmt: skip
    assert done.code == 0, done.err
    pairs = tmp_path / "pairs.csv"
    pl.read_csv(first, infer_schema=False).select("platform", "user", "item").write_csv(pairs)
    done = isthmus("rate", kept, "--pairs", pairs, "--predict", later)
    assert done.code == 0, done.err
    assert first.read_bytes() == later.read_bytes()
    for words, said in (
        (("rate", kept, "--pairs", pairs), "--predict"),
        (("rate", kept, "--predict", later), "--pairs"),
        (("rate", kept, "--pairs", pairs, "--predict", later, "--out", tmp_path / "y"), "has learned"),
        (("rate", kept, "--pairs", pairs, "--predict", later, "--target", "target"), "--target"),
        (("classify", kept, "--items", pairs, "--predict", later), "--save kept"),
    ):
        done = isthmus(*words)
        assert (done.code, len(done.err.strip().splitlines())) == (2, 1), done.err
        assert said in done.err
    (kept / "accounts.parquet").write_bytes(b"x")
    done = isthmus("rate", kept, "--pairs", pairs, "--predict", later)
    assert (done.code, "changed since" in done.err) == (2, True), done.err


RATE = ("rate", "{}/SPLIT", "--target", "target", "--no-read", "--out", "{}/x")
CLASSIFY = ("classify", "{}/SPLIT", "--target", "target", "--no-read", "--out", "{}/x")
BAD = {
    "no ratings": (("rate", "{}/bare/split", *RATE[2:]), "no rating"),
    "unknown target": ((*RATE[:3], "trget", *RATE[4:]), "did you mean 'target'"),
    "pairs without a place": ((*RATE, "--pairs", "{}/p.csv"), "--predict"),
    "ratings to a strange file": ((*RATE, "--predict", "{}/p.xls"), ".csv"),
    "somebody's folder": ((*RATE[:-1], "{}/occupied"), "--out"),
    "a corpus to rate": (("rate", "{}/corpus", *RATE[2:]), "split"),
    "a split as model": ((*RATE, "--from", "{}/SPLIT"), "pre-trained model"),
    "unknown label": ((*CLASSIFY, "--label", "categry"), "did you mean 'category'"),
    "no such attribute": ((*CLASSIFY, "--label", "attribute:colour"), "two classes"),
    "a report and no split": (("rate", "{}/SPLIT", "--out", "{}/x"), "--target"),
    "keep what cannot be": ((*RATE, "--save", "{}/y", "--from", "{}/SPLIT"), "cannot be kept"),
    "keep in somebody's folder": ((*RATE, "--save", "{}/occupied"), "occupied"),
    "new items for a corpus": ((*CLASSIFY, "--items", "{}/p.csv"), "--items"),
    "no target": (("classify", "{}/SPLIT", "--out", "{}/x"), "--target"),
    "ask without a place": ((*CLASSIFY, "--ask", "3"), "--predict"),
    "strategy without a model": ((*CLASSIFY, "--strategy", "lora"), "--from"),
    "impossible share": ((*CLASSIFY, "--share", "0"), "share"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_2_and_one_line(name: str, place: Path) -> None:
    words, said = BAD[name]
    done = isthmus(*(word.replace("{}", str(place)) for word in words))
    assert done.code == 2, done.out + done.err
    assert done.err.startswith("isthmus: ")
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert said in done.err
    assert not (place / "x").exists()
