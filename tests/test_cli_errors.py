"""What the command line does when things go wrong: a message, an exit code, never a traceback, nothing lost."""

from __future__ import annotations

import errno
import json
import logging
from pathlib import Path

import polars as pl
import pytest
from tests.test_cli import Done, isthmus

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import town_tables
from isthmus.log import logger
from isthmus.recommender import Recommender
from isthmus.split.temporal import Split
from isthmus.train.fit import FitSettings


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus, a split, a model, and files of users that are wrong in many ways."""
    folder = tmp_path_factory.mktemp("place")
    corpus = Corpus.from_tables(town_tables(seed=1, persons=60), name="town").save(folder / "corpus")
    split = Split.make(corpus).save(folder / "split")
    quick = FitSettings(methods=("popularity", "knn", "tfidf"), budget=1.0)
    Recommender.fit(split, targets=["books"], settings=quick).save(folder / "model")
    files = {
        "columns.csv": "platform,usr\nbookshop,1\n",
        "empty.csv": "",
        "bytes.csv": b"platform,user\nbookshop,\xff\xfe\n",
        "broken.jsonl": '{"platform": "bookshop", "user": \n',
        "nested.jsonl": '{"platform": "bookshop", "user": {"id": 1}}\n',
        "fake.parquet": "not parquet",
        "users.xlsx": "platform,user\n",
        "events.csv": "platform,user,item\nbookshop,1,no-such-book\n",
        "words.csv": "platform,user,item,event\nbookshop,1,no-such-book,teleport\n",
        "known.csv": "platform,item,domain\nbookshop,{item},books\n",
        "spec.toml": 'name = "x"\nsorce = []\n',
    }
    item = corpus.items.filter(pl.col("platform") == "bookshop")["item"][0]
    for name, content in files.items():
        text = content if isinstance(content, bytes) else content.replace("{item}", item).encode()
        (folder / name).write_bytes(text)
    (folder / "occupied").mkdir()
    (folder / "occupied" / "thesis.txt").write_text("mine")
    return folder


BAD = {
    "no corpus": ("data", "describe", "{}/nothing"),
    "a file as corpus": ("data", "describe", "{}/spec.toml"),
    "a split as corpus": ("split", "{}/split", "--out", "{}/x"),
    "unknown key in spec": ("data", "import", "{}/spec.toml", "--out", "{}/x"),
    "no spec": ("run", "{}/no.toml", "--out", "{}/x"),
    "somebody's folder": ("split", "{}/corpus", "--out", "{}/occupied"),
    "impossible shares": ("split", "{}/corpus", "--out", "{}/x", "--valid-share", "0.9", "--test-share", "0.2"),
    "no date": ("split", "{}/corpus", "--out", "{}/x", "--cut", "yesterday"),
    "three cuts": ("split", "{}/corpus", "--out", "{}/x", *("--cut", "2024-06-01") * 3),
    "cut and leave-last": ("split", "{}/corpus", "--out", "{}/x", "--protocol", "leave-last", "--cut", "2024-06-01"),
    "half of the people": ("split", "{}/corpus", "--out", "{}/x", "--test-users", "{}/columns.csv"),
    "no few-shot domain": ("split", "{}/corpus", "--out", "{}/x", "--few-shot", "boks"),
    "no share of people": ("split", "{}/corpus", "--out", "{}/x", "--few-shot", "books", "--few-share", "0"),
    "no domain": ("fit", "{}/split", "--out", "{}/x", "--target", "boks"),
    "no method": ("fit", "{}/split", "--out", "{}/x", "--methods", "magic"),
    "no language model": ("encode", "{}/corpus", "--model", "/no/such/model"),
    "one model": ("compare", "{}/model", "{}/split", "--out", "{}/x"),
    "one model twice": ("compare", "{}/model", "{}/model", "{}/split", "--out", "{}/x"),
    "no model": ("recommend", "{}/corpus", "--out", "{}/x.csv"),
    "no such target": ("recommend", "{}/model", "--target", "films", "--out", "{}/x.csv"),
    "no format": ("recommend", "{}/model", "--out", "{}/x.xlsx"),
    "a folder as lists": ("recommend", "{}/model", "--out", "{}/folder.csv"),
    "no users file": ("recommend", "{}/model", "--out", "{}/x.csv", "--users", "{}/no.csv"),
    "users without column": ("recommend", "{}/model", "--out", "{}/x.csv", "--users", "{}/columns.csv"),
    "empty users": ("recommend", "{}/model", "--out", "{}/x.csv", "--users", "{}/empty.csv"),
    "users of no encoding": ("recommend", "{}/model", "--out", "{}/x.csv", "--users", "{}/bytes.csv"),
    "broken lines": ("recommend", "{}/model", "--out", "{}/x.csv", "--users", "{}/broken.jsonl"),
    "nested users": ("recommend", "{}/model", "--out", "{}/x.csv", "--users", "{}/nested.jsonl"),
    "not parquet": ("recommend", "{}/model", "--out", "{}/x.csv", "--users", "{}/fake.parquet"),
    "users in a workbook": ("recommend", "{}/model", "--out", "{}/x.csv", "--users", "{}/users.xlsx"),
    "a folder as users": ("recommend", "{}/model", "--out", "{}/x.csv", "--users", "{}/folder.csv"),
    "events on no item": ("recommend", "{}/model", "--out", "{}/x.csv", "--events", "{}/events.csv"),
    "events of no kind": ("recommend", "{}/model", "--out", "{}/x.csv", "--events", "{}/words.csv"),
    "new item known": ("recommend", "{}/model", "--out", "{}/x.csv", "--items", "{}/known.csv"),
    "items without column": ("recommend", "{}/model", "--out", "{}/x.csv", "--items", "{}/columns.csv"),
    "item without colon": ("similar", "{}/model", "--item", "bookshop"),
    "no such item": ("similar", "{}/model", "--item", "bookshop:nothing"),
    "nobody": ("narrate", "{}/corpus", "--person", "nobody"),
    "no room": ("narrate", "{}/corpus", "--max-tokens", "0"),
}
USAGE = {
    "no verb": ("frobnicate",),
    "no argument": ("fit",),
    "no list length": ("recommend", "{}/model", "--out", "{}/x.csv", "-k", "0"),
    "no number": ("recommend", "{}/model", "--out", "{}/x.csv", "-k", "ten"),
    "no protocol": ("split", "{}/corpus", "--out", "{}/x", "--protocol", "random"),
    "no language": ("narrate", "{}/corpus", "--language", "tlh"),
    "no flag": ("doctor", "--frobnicate"),
}


def call(words: tuple[str, ...], place: Path, *more: str) -> Done:
    (place / "folder.csv").mkdir(exist_ok=True)
    return isthmus(*(word.replace("{}", str(place)) for word in words), *more)


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_2_and_a_message(name: str, place: Path) -> None:
    before = sorted(place.rglob("*"))
    done = call(BAD[name], place)
    assert done.code == 2, done.out + done.err
    assert done.err.startswith("isthmus: ")
    assert len(done.err.strip().splitlines()) <= 3
    assert "Traceback" not in done.err + done.out
    assert done.out == ""
    assert sorted(path for path in place.rglob("*") if path.name != "folder.csv") == [
        path for path in before if path.name != "folder.csv"
    ]


@pytest.mark.parametrize("name", USAGE)
def test_wrong_usage_ends_with_2(name: str, place: Path) -> None:
    done = call(USAGE[name], place)
    assert done.code == 2
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_typo_is_answered_with_the_nearest_word(place: Path) -> None:
    assert "did you mean 'books'?" in call(BAD["no domain"], place).err
    assert "did you mean 'source'?" in call(BAD["unknown key in spec"], place).err
    assert "did you mean 'user" not in call(BAD["no format"], place).err


def test_errors_are_json_too(place: Path) -> None:
    done = call(BAD["no corpus"], place, "--json")
    assert done.code == 2
    assert json.loads(done.out)["error"]["where"].endswith("nothing")
    assert done.err.startswith("isthmus: ")


def test_the_unexpected_is_one_line_and_a_traceback_on_demand(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(corpus: Corpus) -> None:
        raise ValueError("the moon is in the way\nand more")

    monkeypatch.setattr("isthmus.data.describe.describe", broken)
    done = isthmus("data", "describe", place / "corpus")
    assert done.code == 1
    assert done.err.strip() == "isthmus: ValueError: the moon is in the way (set ISTHMUS_DEBUG=1 for the traceback)"
    assert json.loads(isthmus("data", "describe", place / "corpus", "--json").out)["error"]["what"]
    monkeypatch.setenv("ISTHMUS_DEBUG", "1")
    assert "Traceback" in isthmus("data", "describe", place / "corpus").err


def test_an_interruption_ends_with_130(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(corpus: Corpus) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("isthmus.data.describe.describe", stopped)
    done = isthmus("data", "describe", place / "corpus")
    assert done.code == 130
    assert done.err.strip() == "isthmus: interrupted; nothing is half written"


def test_a_full_disk_keeps_the_old_lists(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lists = tmp_path / "recs.parquet"
    assert isthmus("recommend", place / "model", "--out", lists, "-k", 2).code == 0
    before = lists.read_bytes()

    def full(frame: pl.DataFrame, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pl.DataFrame, "write_parquet", full)
    done = isthmus("recommend", place / "model", "--out", lists, "-k", 3)
    assert done.code == 1
    assert "the disk is full" in done.err
    assert lists.read_bytes() == before
    assert list(tmp_path.iterdir()) == [lists]


def test_titles_with_brackets_and_marks_are_shown_as_they_are(tmp_path: Path) -> None:
    tables = town_tables(seed=1, persons=60)
    tables["items"] = tables["items"].with_columns(title=pl.lit("[bold]深海[/bold] :smile: ") + pl.col("item"))
    split = Split.make(Corpus.from_tables(tables, name="[red]town").save(tmp_path / "corpus"))
    model = Recommender.fit(split, targets=["books"], settings=FitSettings(methods=("knn",), budget=1.0))
    model.save(tmp_path / "model")
    item = split.corpus.items.row(0, named=True)
    shown = isthmus("similar", tmp_path / "model", "--item", f"{item['platform']}:{item['item']}", "-k", 2)
    assert "[bold]深海[/bold] :smile: " in shown.out
    assert "[red]town" in isthmus("data", "describe", tmp_path / "corpus").out


def test_verbose_says_more(place: Path, tmp_path: Path) -> None:
    words = ("fit", place / "split", "--target", "books", "--methods", "popularity,knn", "--budget", 1)
    kept, level = logger.handlers, logger.level
    quiet = isthmus(*words, "--out", tmp_path / "a")
    loud = isthmus(*words, "--out", tmp_path / "b", "-v")
    logger.handlers = kept
    logger.setLevel(level)
    assert "blend" not in quiet.err
    assert len(loud.err.splitlines()) > len(quiet.err.splitlines())
    assert logging.getLogger().handlers is not kept
