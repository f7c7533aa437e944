"""`isthmus distil`: every command and example of its page runs, and what is wrong is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.pages import blocks_of, commands_of, text_of
from tests.test_cli import good, isthmus
from tests.tiny_reader import reader

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import WORLD, twin_world
from isthmus.encode.static import StaticEncoder
from isthmus.recommender import Recommender
from isthmus.split.temporal import Split

PAGE = text_of("distil.md")
COMMANDS = commands_of(PAGE)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split, two models of it, a language model, and another split."""
    folder = tmp_path_factory.mktemp("distil")
    for name, seed in (("SPLIT", 0), ("OTHER", 1)):
        world = twin_world(seed, replace(WORLD, persons=80, items=40))
        Split.make(Corpus.from_tables(world.tables, name="twin").save(folder / f"{name}-corpus")).save(folder / name)
    fit = ("fit", folder / "SPLIT", "--target", "target", "--budget", 1, "--methods")
    good(*fit, "popularity,knn,tfidf", "--out", folder / "MODEL")
    good(*fit, "popularity,ease", "--out", folder / "MODEL3")
    (folder / "READER").symlink_to(reader())
    (folder / "occupied").mkdir()
    (folder / "occupied" / "thesis.txt").write_text("mine")
    return folder


def test_the_commands_of_the_page_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert len(COMMANDS) == 7
    item = Split.open("SPLIT").corpus.items.filter(platform="south")["item"][0]
    for command in COMMANDS:
        good(*command.replace("s0000000", item).split()[1:])
    assert Path("lists.parquet").is_file()
    small = Recommender.open("SMALL")
    assert small.targets["target"].blend.methods == ("student-lists",)
    both = Recommender.open("ENSEMBLE").card["distilled"]
    assert both["teachers"] == [{"target": ["popularity", "knn", "tfidf"]}, {"target": ["popularity", "ease"]}]  # type: ignore[index]
    assert StaticEncoder("STATIC").dim == 8
    assert Recommender.open("FITTED").features.vectors.shape[1] == 8  # type: ignore[union-attr]
    namespace: dict[str, object] = {}
    for body in blocks_of(PAGE, "python"):
        exec(body, namespace)
    assert namespace["cost"].megabytes > 0  # type: ignore[attr-defined]


def test_json_says_what_is_kept_and_what_it_costs(place: Path) -> None:
    done = good(
        "distil", place / "MODEL", place / "SPLIT", "--epochs", 0, "--kept", 9, "--out", place / "nine", "--json"
    )
    said = done["targets"]["target"]  # type: ignore[index]
    assert 0 < said["agreement@10"] <= 1
    assert set(said["student"]) == set(said["teacher"]) == {"ms_one", "ms_batch", "megabytes"}
    made = Recommender.open(place / "nine").targets["target"].methods[0]
    assert made.state()["data"].size <= 9 * made.n_items


MODEL = ("distil", "{}/MODEL", "{}/SPLIT", "--out", "{}/x")
BAD = {
    "a flag of another student": ((*MODEL, "--dim", "8"), "has no --dim"),
    "an objective of another student": ((*MODEL, "--objective", "vector=1"), "no objective 'vector'"),
    "an unknown objective": ((*MODEL, "--objective", "scor=1"), "did you mean 'score'"),
    "an objective weighed by words": ((*MODEL, "--objective", "list=much"), "weight"),
    "no temperature": ((*MODEL, "--temperature", "0"), "not above 0"),
    "a split of other data": (("distil", "{}/MODEL", "{}/OTHER", "--out", "{}/x"), "other data"),
    "no model": (("distil", "{}/SPLIT", "{}/SPLIT", "--out", "{}/x"), "is not a model"),
    "somebody's folder": ((*MODEL[:4], "{}/occupied"), "--out"),
    "also, for a text student": ((*MODEL, "--student", "static", "--also", "{}/MODEL"), "has no --also"),
    "too many layers": (
        ("distil", "{}/READER", "{}/SPLIT", "--student", "layers", "--layers", "9", "--out", "{}/x"),
        "9 layers",
    ),
    "no language model": (("distil", "./none", "{}/SPLIT", "--student", "static", "--out", "{}/x"), "no such model"),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_wrong_is_named(place: Path, what: str) -> None:
    words, said = BAD[what]
    done = isthmus(*(word.format(place) for word in words))
    assert done.code == 2, done.out + done.err
    assert said in done.err.replace("\n", " ")
    assert "Traceback" not in done.err
    assert not (place / "x").exists()
