"""The verbs about one person: every command and program of docs/persons.md, and what is said of wrong input."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from tests.pages import text_of
from tests.test_cli import good, isthmus

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import WORLD, twin_world
from isthmus.recommender import Recommender
from isthmus.split.temporal import Split
from isthmus.train.fit import FitSettings

ROOT = Path(__file__).parents[1]
PAGE = text_of("persons.md")
BLOCKS = dict(re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S))
COMMANDS = [line for line in BLOCKS["bash"].splitlines() if line.startswith("isthmus ")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus in which one film is a book of the other platform, and its model."""
    folder = tmp_path_factory.mktemp("persons")
    tables = dict(twin_world(0, replace(WORLD, persons=60, items=40)).tables)
    book = tables["items"].filter(platform="north")["title"][0]
    first = (pl.col("platform") == "south") & (pl.int_range(pl.len()).over("platform") == 0)
    title = pl.when(first).then(pl.lit(f"{book} (Original Motion Picture Soundtrack)")).otherwise("title")
    tables["items"] = tables["items"].with_columns(title=title)
    corpus = Corpus.from_tables(tables, name="twin").save(folder / "CORPUS")
    methods = FitSettings(methods=("popularity", "tfidf"), budget=1.0)
    Recommender.fit(Split.make(corpus), settings=methods).save(folder / "MODEL")
    return folder


def somebody(place: Path) -> dict[str, str]:
    """Return platform, user and name of somebody on both platforms."""
    accounts = Recommender.open(place / "MODEL").content.people.accounts
    return dict(accounts.filter(pl.len().over("name") == 2).sort("name").row(0, named=True))


def test_every_command_and_program_of_the_page_works(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    who = somebody(place)
    assert len(COMMANDS) == 12
    for command in COMMANDS:
        words = command.replace("PLATFORM:USER", f"{who['platform']}:{who['user']}").replace("PERSON", who["name"])
        done = isthmus(*words.replace("PLATFORM", who["platform"]).split()[1:])
        assert done.code == 0, f"{command}\n{done.err}"
    lists = pl.read_csv("lists.csv", infer_schema=False)
    assert lists.columns == ["platform", "user", "domain", "item", "rank", "score", "item_platform"]
    assert lists.select("platform", "user").unique().height == 2
    assert pl.read_parquet("everybody.parquet").height > 1000
    pairs = pl.read_csv("works.csv")
    assert pairs.filter(same="yes")["other_title"].str.contains("Soundtrack").any()
    exec(compile(BLOCKS["python"].replace("PERSON", who["name"]), "docs/persons.md", "exec"), {})


def test_one_person_on_screen_and_as_json(place: Path) -> None:
    who = somebody(place)
    said = good("recommend", place / "MODEL", "--person", who["name"], "-k", 3)
    assert said["person"] == who["name"]
    assert [row["platform"] for row in said["accounts"]] == ["north", "south"]
    assert [(part["domain"], part["platform"], len(part["items"])) for part in said["lists"]] == [
        ("source", "north", 3),
        ("target", "south", 3),
    ]
    assert {"score", "own", "chance", "taste_score", "others"} <= set(said["consistency"])
    shown = isthmus("recommend", place / "MODEL", "--person", who["name"], "-k", 3).out
    assert "target on south" in shown
    assert "consistency" in shown
    assert said["lists"][1]["items"][0]["title"][:12] in shown


def test_a_ban_is_set_listed_obeyed_and_taken_back(place: Path) -> None:
    who = somebody(place)
    ask = ("recommend", place / "MODEL", "--person", who["name"], "-k", 5, "--works", "none")
    before = good(*ask)["lists"]
    said = good("consents", "set", place / "MODEL", "--account", f"{who['platform']}:{who['user']}", "--from", "north")
    assert said["set"][0]["allowed"] is False
    after = good(*ask)["lists"]
    assert after[0] == before[0]
    assert after[1] != before[1]
    assert good("consents", "list", place / "MODEL")[-1]["from_platform"] == "north"
    back = ("--from", "north", "--allow")
    good("consents", "set", place / "MODEL", "--account", f"{who['platform']}:{who['user']}", *back)
    assert good(*ask)["lists"] == before


def test_reviewed_pairs_count(place: Path, tmp_path: Path) -> None:
    said = good("works", place / "MODEL", "--out", tmp_path / "works.csv")
    assert said["same"] >= 1
    pairs = pl.read_csv(tmp_path / "works.csv", infer_schema=False)
    assert pairs.columns[:3] == ["platform", "item", "title"]
    who = somebody(place)
    ask = ("recommend", place / "MODEL", "--person", who["name"], "-k", 40, "--include-seen")
    size = {name: sum(len(part["items"]) for part in good(*ask, "--works", name)["lists"]) for name in ("auto", "none")}
    assert size["none"] == 80
    assert size["auto"] == 80 - said["same"]
    pairs.with_columns(same=pl.lit("no")).write_csv(tmp_path / "works.csv")
    kept = good(*ask, "--works", tmp_path / "works.csv")["lists"]
    assert sum(len(part["items"]) for part in kept) == 80


WRONG = {
    "nobody asked for and no file": (("recommend", "{}/MODEL"), "--out"),
    "a person and a table of users": (("recommend", "{}/MODEL", "--person", "x", "--users", "{}/u.csv"), "--users"),
    "a person and an account": (("recommend", "{}/MODEL", "--person", "x", "--account", "a:b"), "name a person"),
    "an unknown person": (("recommend", "{}/MODEL", "--person", "person-99999"), "did you mean"),
    "no account": (("recommend", "{}/MODEL", "--account", "north"), "PLATFORM:USER"),
    "an unknown domain": (("recommend", "{}/MODEL", "--account", "a:b", "--target", "targt"), "did you mean"),
    "a weight above 1": (("recommend", "{}/MODEL", "--account", "a:b", "--calibrate", "2"), "less than or equal to 1"),
    "no file of works": (("recommend", "{}/MODEL", "--account", "a:b", "--works", "{}/none.csv"), "no such file"),
    "no file of consents": (("recommend", "{}/MODEL", "--account", "a:b", "--consents", "{}/none.csv"), "no such file"),
    "works of a split": (("works", "{}/nothing", "--out", "{}/w.csv"), "model"),
    "works to a workbook": (("works", "{}/MODEL", "--out", "{}/w.xlsx"), ".csv"),
    "a ban by nobody": (("consents", "set", "{}/MODEL", "--from", "north"), "name a person"),
    "a ban on no platform": (("consents", "set", "{}/MODEL", "--account", "north:x", "--from", "nrth"), "did you mean"),
    "consents of no model": (("consents", "list", "{}/CORPUS"), "model"),
    "consistency of no model": (("consistency", "{}/CORPUS"), "model"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_one_line(place: Path, case: str) -> None:
    words, message = WRONG[case]
    done = isthmus(*(word.format(place) for word in words), "--json")
    assert done.code == 2, done.out
    assert "Traceback" not in done.err
    assert message in done.err + json.dumps(done.out, ensure_ascii=False)
