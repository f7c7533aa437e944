"""New items on the command line: into a saved model at once, listed as new, and the docs page runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.pages import blocks_of, run_programs, text_of
from tests.test_recommender import QUICK, users
from typer.testing import CliRunner

from isthmus.cli.main import app
from isthmus.data.corpus import Corpus
from isthmus.data.simulate import WORLD, twin_world
from isthmus.errors import DataError
from isthmus.model.fresh import Exploration
from isthmus.recommender import Recommender
from isthmus.recommender.items import exposures, list_items
from isthmus.recommender.listing import Rules
from isthmus.split.temporal import Split


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    world = twin_world(1, replace(WORLD, persons=90, items=50))
    split = Split.make(Corpus.from_tables(world.tables, name="world"), valid_share=0.15, test_share=0.15)
    how = replace(QUICK, methods=("popularity", "knn", "tfidf", "aligned", "launch"), budget=0.5)
    path = tmp_path_factory.mktemp("model") / "MODEL"
    Recommender.fit(split, targets=["target"], settings=how).save(path)
    return path


def some(model: Path, count: int = 3) -> pl.DataFrame:
    """Return copies of known items under other names."""
    known = Recommender.open(model).items.filter(domain="target").head(count)
    names = pl.Series([f"新-{n}" for n in range(count)])
    return known.with_columns(item=names).select("platform", "item", "domain", "title", "text")


def called(*words: str) -> str:
    result = CliRunner().invoke(app, list(words))
    assert result.exit_code == 0, result.output
    return result.stdout


def test_items_are_added_to_a_saved_model_and_listed_as_new(model: Path, tmp_path: Path) -> None:
    some(model).write_csv(tmp_path / "new.csv")
    before = list_items(Recommender.open(model).content, new=True)
    said = json.loads(
        called("items", "add", str(model), str(tmp_path / "new.csv"), "--out", str(tmp_path / "M2"), "--json")
    )
    assert said["added"] == 3
    rows = json.loads(called("items", "list", str(tmp_path / "M2"), "--new", "--json"))
    assert len(rows) == before.height + 3
    assert {row["item"] for row in rows} >= {"新-0", "新-1", "新-2"}
    assert all(row["new"] for row in rows)
    longer = Recommender.open(tmp_path / "M2")
    lists = longer.recommend(users(("south", "nobody")), k=longer.items.height, exclude_seen=False)
    assert set(lists["item"]) >= {"新-0", "新-1", "新-2"}
    assert list_items(longer.content).height == longer.items.filter(domain="target").height
    assert "items" in called("items", "list", str(model))


def test_what_is_wrong_with_new_items_is_said(model: Path, tmp_path: Path) -> None:
    new = some(model)
    for frame, message in [
        (pl.concat([new, new]), "repeats a key"),
        (Recommender.open(model).items.head(1), "known already"),
    ]:
        frame.drop([name for name in frame.columns if frame.schema[name].is_nested()]).write_csv(tmp_path / "x.csv")
        result = CliRunner().invoke(
            app, ["items", "add", str(model), str(tmp_path / "x.csv"), "--out", str(tmp_path / "M")]
        )
        assert result.exit_code == 2
        assert "Traceback" not in result.output
        with pytest.raises(DataError, match=message):
            Recommender.open(model).add_items(frame)
    assert not (tmp_path / "M").exists()


def test_lists_explore_as_far_as_the_cap_lets_them(model: Path) -> None:
    longer = Recommender.open(model).add_items(some(model, 8))
    names = list_items(longer.content, new=True)["item"]

    def share(**chosen: object) -> float:
        lists = longer.recommend(k=10, rules=Rules(**chosen))  # type: ignore[arg-type]
        per = lists.group_by("platform", "user").agg(pl.col("item").is_in(names.implode()).sum())["item"]
        return float(per.max() or 0), float(per.mean() or 0)  # type: ignore[return-value, arg-type]

    loud = share(explore=Exploration(bonus=50.0))
    assert loud[1] > 5  # type: ignore[index]
    assert share(explore=Exploration(cap=2, bonus=50.0)) == (2.0, 2.0)
    assert share(explore=Exploration(cap=0))[0] == 0  # type: ignore[index]
    seen = list_items(longer.content, new=True).select("platform", "item").with_columns(shown=pl.lit(10_000))
    assert share(explore=Exploration(bonus=50.0), shown=seen) == share()


def test_recommend_gives_new_items_their_share_of_a_list(model: Path, tmp_path: Path) -> None:
    Recommender.open(model).add_items(some(model, 8)).save(tmp_path / "M2")
    new = list_items(Recommender.open(tmp_path / "M2").content, new=True)

    def most(*options: str) -> int:
        called("recommend", str(tmp_path / "M2"), "--out", str(tmp_path / "lists.csv"), *options)
        lists = pl.read_csv(tmp_path / "lists.csv").filter(pl.col("item").is_in(new["item"].implode()))
        (tmp_path / "lists.csv").unlink()
        return int(lists.group_by("platform", "user").len()["len"].max() or 0)  # type: ignore[arg-type, call-overload]

    assert most("--explore", "0.3", "--explore-bonus", "50") == 3
    assert most("--explore", "0") == 0
    new.select("platform", "item").with_columns(shown=pl.lit(10_000)).write_csv(tmp_path / "shown.csv")
    loud = ("--explore", "1", "--explore-bonus", "50")
    assert most(*loud, "--shown", str(tmp_path / "shown.csv")) < most(*loud)
    for wrong in (("--shown", str(tmp_path / "shown.csv")), ("--explore", "1.5")):
        result = CliRunner().invoke(app, ["recommend", str(model), "--out", str(tmp_path / "x.csv"), *wrong])
        assert result.exit_code == 2
        assert "Traceback" not in result.output


def test_exposures_are_counted_by_item(model: Path) -> None:
    items = Recommender.open(model).items
    first = items.head(1).select("platform", "item")
    shown = pl.concat([first, first]).with_columns(shown=pl.Series([2, 3]))
    found = exposures(shown, items)
    assert found[0] == 5
    assert not found[1:].any()
    assert not exposures(None, items).any()
    with pytest.raises(DataError, match="lacks column"):
        exposures(shown.drop("shown"), items)


def test_the_page_runs(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    some(model).write_csv("new.csv")
    Recommender.open(model).save("MODEL")
    page = text_of("new-items.md")
    commands = [line for block in blocks_of(page, "bash") for line in block.splitlines()]
    assert len(commands) == 4
    for line in commands:
        called(*line.split()[1:])
    for name in ("new-items.md", "index.md"):
        run_programs(name, 1, {"np": np})
