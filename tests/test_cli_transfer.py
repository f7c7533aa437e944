"""The verbs of transfer: pretrain, adapt, fit --from, trial; and what they say when something is wrong."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.pages import blocks_of, commands_of, text_of
from tests.test_cli import Done, good, isthmus
from tests.tiny_reader import reader

from isthmus.cli.transfer import working
from isthmus.data.corpus import Corpus
from isthmus.data.sequences import Histories
from isthmus.data.simulate import WORLD, twin_world
from isthmus.errors import InputError
from isthmus.recommender import Recommender
from isthmus.split.temporal import TRAIN, Split
from isthmus.train.tune import validate
from isthmus.transfer.adapted import Adapted

PAGE = text_of("transfer.md")
COMMANDS = commands_of(PAGE)


def a_split(folder: Path, *, change: object = None, **plan: object) -> Split:
    world = twin_world(0, replace(WORLD, **{"persons": 60, "items": 40, **plan}))
    tables = change(dict(world.tables)) if callable(change) else world.tables
    return Split.make(Corpus.from_tables(tables, name="twin").save(folder / "corpus")).save(folder / "split")


def thinned(split: Split, keep: int, folder: Path) -> Path:
    """Write the split with no more than ``keep`` training events in the target."""
    mine = (split.corpus.items["domain"].gather(split.events["item"]) == "target") & (split.events["part"] == TRAIN)
    first = pl.Series(np.cumsum(mine.to_numpy()) <= keep)
    Split(split.corpus, split.events.filter(~mine | first), split.card).save(folder)
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A split, a pre-trained sequence model, an adapted one, and things that are wrong."""
    folder = tmp_path_factory.mktemp("transfer")
    split = a_split(folder)
    how = ("--domains", "source", "--epochs", 2, "--track", "none")
    good("pretrain", folder / "split", *how, "--out", folder / "model")
    good("adapt", folder / "model", folder / "split", "--target", "target", "--epochs", 1, "--out", folder / "adapted")
    told = ("--carrier", "language", "--model", reader(), "--epochs", 1)
    good("pretrain", folder / "split", *told, "--track", "none", "--out", folder / "told")
    thinned(split, 0, folder / "nothing")
    thinned(split.only("target"), 1, folder / "single")
    thinned(split, 1, folder / "nearly")
    for name, change in (("same", same_texts), ("only", one_item)):
        (folder / name).mkdir()
        a_split(folder / name, change=change)
    shutil.copytree(folder / "model", folder / "future")
    card = json.loads((folder / "future" / "isthmus.json").read_text())
    (folder / "future" / "isthmus.json").write_text(json.dumps({**card, "format": 99}))
    shutil.copytree(folder / "adapted", folder / "later")
    (folder / "later" / "adapted.json").write_text('{"format": 99}')
    shutil.copytree(folder / "adapted", folder / "torn")
    (folder / "torn" / "heads" / "target.safetensors").write_bytes(b"half")
    shutil.copytree(reader(), folder / "reader")
    (folder / "occupied").mkdir()
    (folder / "occupied" / "thesis.txt").write_text("mine")
    return folder


def same_texts(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    empty = {name: pl.lit(None, tables["items"].schema[name]) for name in ("text", "categories", "attributes")}
    return {**tables, "items": tables["items"].with_columns(title=pl.lit("a thing"), **empty)}


def one_item(tables: dict[str, pl.DataFrame]) -> dict[str, pl.DataFrame]:
    first = tables["items"].filter(pl.col("domain") == "target")["item"][0]
    other = (pl.col("platform") != "south") | (pl.col("item") == first)
    return {**tables, "items": tables["items"].filter(other), "events": tables["events"].filter(other)}


ADAPT = ("adapt", "{}/model", "{}/split", "--target", "target", "--out", "{}/x")
PRETRAIN = ("pretrain", "{}/split", "--out", "{}/x")
TRIAL = ("trial", "{}/split", "--from", "{}/model", "--target", "target", "--out", "{}/x")
FIT = ("fit", "{}/split", "--target", "target", "--out", "{}/x")
BAD = {
    "unknown objective": ((*PRETRAIN, "--objective", "nxt=1"), "next"),
    "unknown objective of language": ((*PRETRAIN, "--carrier", "language", "--objective", "mlmm"), "mlm"),
    "an objective weighed by words": ((*PRETRAIN, "--objective", "next=much"), "weight"),
    "unknown operation": ((*PRETRAIN, "--objective", "next,views", "--augment", "crop,flip"), "flip"),
    "operations without views": ((*PRETRAIN, "--augment", "crop"), "views"),
    "operations of the other carrier": ((*PRETRAIN, "--carrier", "language", "--augment", "crop"), "sequence carrier"),
    "no next": ((*PRETRAIN, "--objective", "views=1"), "next"),
    "unknown domain to learn from": ((*PRETRAIN, "--domains", "sorce"), "did you mean 'source'"),
    "unknown tracker": ((*PRETRAIN, "--track", "tensorbord"), "did you mean 'tensorboard'"),
    "a split that is none": (("pretrain", "{}/corpus", "--out", "{}/x"), "split"),
    "somebody's folder for the model": (("pretrain", "{}/split", "--out", "{}/occupied"), "--out"),
    "the same texts to learn from": (("pretrain", "{}/same/split", "--out", "{}/x"), "text"),
    "unknown strategy": ((*ADAPT, "--strategy", "loar"), "did you mean 'lora'"),
    "unknown head": ((*ADAPT, "--head", "rank"), "did you mean 'ranking'"),
    "unknown loss": ((*ADAPT, "--head", "ranking", "--loss", "mse"), "bpr"),
    "a loss of another head": ((*ADAPT, "--loss", "bpr"), "softmax"),
    "unknown classes": ((*ADAPT, "--head", "classification", "--classes", "colour"), "categories"),
    "classes cannot be added": ((*ADAPT, "--head", "classification", "--additive"), "additive"),
    "no ratings": ((*ADAPT, "--head", "rating"), "value"),
    "unknown target": ((*ADAPT[:4], "trget", *ADAPT[5:]), "did you mean 'target'"),
    "unknown tracker to adapt": ((*ADAPT, "--track", "notebook"), "tensorboard"),
    "no epochs": ((*ADAPT, "--epochs", "0"), "more than 0"),
    "model of another format": (("adapt", "{}/future", *ADAPT[2:]), "format 99"),
    "adapted models of another format": ((*ADAPT[:5], "--out", "{}/later"), "format 99"),
    "a split as model": (("adapt", "{}/split", *ADAPT[2:]), "pre-trained model"),
    "somebody's folder": ((*ADAPT[:5], "--out", "{}/occupied"), "--out"),
    "no training event": (("adapt", "{}/model", "{}/nothing", *ADAPT[3:]), "no training event"),
    "one training event": (("adapt", "{}/model", "{}/single", *ADAPT[3:]), "nothing to learn"),
    "one item": (("adapt", "{}/model", "{}/only/split", *ADAPT[3:]), "one item"),
    "all texts the same": (("adapt", "{}/model", "{}/same/split", *ADAPT[3:]), "same text"),
    "unknown setting of training": ((*ADAPT, "--set", "waarmup=0.1"), "did you mean 'warmup'"),
    "unknown setting to pre-train": ((*PRETRAIN, "--set", "rank=4"), "no setting 'rank'"),
    "a setting without a value": ((*ADAPT, "--set", "warmup"), "warmup=VALUE"),
    "a setting of another type": ((*ADAPT, "--strategy", "lora", "--set", "rank=high"), "a whole number"),
    "a setting that makes no sense": ((*ADAPT, "--set", "warmup=2"), "share from 0 to 1"),
    "a rank that makes no sense": ((*ADAPT, "--strategy", "lora", "--set", "rank=0"), "more than 0"),
    "a switch that is none": ((*ADAPT, "--set", "ids=perhaps"), "true or false"),
    "no shares": ((*TRIAL, "--shares", "half"), "shares"),
    "a share above 1": ((*TRIAL, "--shares", "0,3"), "shares"),
    "trial of no model": ((*TRIAL[:3], "{}/split", *TRIAL[4:]), "pre-trained model"),
    "fit from another format": ((*FIT, "--from", "{}/future"), "format 99"),
    "fit by another encoder": ((*FIT, "--from", "{}/model", "--model", "{}/reader"), "leave --model out"),
    "fit from two of one kind": ((*FIT, "--from", "{}/model", "--from", "{}/model"), "one of each"),
    "fit from targets to many": (("fit", "{}/split", "--out", "{}/x", "--from", "{}/adapted"), "--target"),
}


def call(words: tuple[str, ...], place: Path) -> Done:
    return isthmus(*(word.replace("{}", str(place)) for word in words))


@pytest.mark.parametrize("name", BAD)
def test_bad_input_ends_with_2_and_one_line(name: str, place: Path) -> None:
    words, said = BAD[name]
    before = sorted(place.rglob("*"))
    done = call(words, place)
    assert done.code == 2, done.out + done.err
    assert done.err.startswith("isthmus: ")
    assert len(done.err.strip().splitlines()) == 1, done.err
    assert said in done.err
    assert done.out == ""
    assert sorted(place.rglob("*")) == before


def test_views_are_made_by_the_operations_named(place: Path, tmp_path: Path) -> None:
    words = (
        "pretrain",
        place / "split",
        "--domains",
        "source",
        "--epochs",
        1,
        "--track",
        "none",
        "--out",
        tmp_path / "m",
    )
    said = good(*words, "--objective", "next=1,views=0.1", "--augment", "substitute", "--augment", "insert,crop")
    assert said["settings"]["augment"] == ["substitute", "insert", "crop"]
    assert said["objectives"] == {"next": 1.0, "views": 0.1}


def test_adapting_prints_what_was_trained_and_what_it_brought(place: Path, tmp_path: Path) -> None:
    words = ("adapt", place / "model", place / "split", "--target", "target", "--strategy", "lora", "--epochs", 1)
    done = isthmus(*words, "--out", tmp_path / "a", "--track", "tensorboard")
    assert done.code == 0, done.err
    for word in ("trainable parameters", "seconds", "peak memory", "ndcg@10 before", "ndcg@10 after", "lora"):
        assert word in done.out
    assert list((tmp_path / "a.logs" / "tensorboard").glob("events*"))
    assert not (tmp_path / "a.work").exists()


def test_settings_without_an_option_of_their_own_are_set(place: Path, tmp_path: Path) -> None:
    words = ("adapt", place / "model", place / "split", "--target", "target", "--epochs", 1, "--track", "none")
    low = ("--strategy", "lora", "--set")
    two, four = (good(*words, *low, f"rank={n},ids=no", "--out", tmp_path / f"rank-{n}") for n in (2, 4))
    halves = good(*words, *low, "rank=2,ids=no,steps=3,accumulation=2", "--out", tmp_path / "halves")
    said = json.loads((tmp_path / "halves" / "heads" / "target.json").read_text())["settings"]
    assert said["training"] == {"steps": 3, "accumulation": 2}
    assert said["sizes"] == {"rank": 2}
    assert said["ids"] is False
    assert two["trainable"] < four["trainable"], "two more of each row and column"
    assert halves["trainable"] == two["trainable"]
    assert halves["steps"] <= 3
    split = Split.open(place / "split")
    for name in ("rank-2", "rank-4"):
        assert np.isfinite(Adapted.open(tmp_path / name, split, "target").score(Histories.of([[0]]))).all()
    learn = ("pretrain", place / "split", "--domains", "source", "--epochs", 4, "--track", "none")
    small = good(*learn, "--set", "dim=16", "--set", "layers=1,adversarial=0.5", "--out", tmp_path / "small")
    assert (small["settings"]["dim"], small["settings"]["layers"]) == (16, 1)
    assert small["settings"]["training"] == {"adversarial": 0.5}
    pushed, plain = (
        good(*learn, "--set", f"dim=16,layers=1,adversarial={size}", "--out", tmp_path / f"push-{size}")
        for size in ("0.5", "0")
    )
    assert pushed["log"]["losses"] == small["log"]["losses"] != plain["log"]["losses"]


AIDS = {
    "adversarial": "adversarial=0.5",
    "layer_decay": "layer_decay=0.5",
    "gradient_checkpointing": "gradient_checkpointing=on",
    "accumulation": "accumulation=2",
    "average": "average=2",
    "schedule": "schedule=cosine,warmup=0.5,weight_decay=0.1,clip=0.1",
    "precision": "precision=float32,patience=1",
}


@pytest.mark.parametrize("aid", AIDS)
@pytest.mark.parametrize("carrier", ["sequence", "language"])
def test_every_aid_works_with_both_carriers(aid: str, carrier: str, place: Path, tmp_path: Path) -> None:
    model = "model" if carrier == "sequence" else "told"
    words = ("adapt", place / model, place / "split", "--target", "target", "--epochs", 2, "--track", "none")
    said = good(*words, "--set", AIDS[aid], "--out", tmp_path / "aided")
    usual = good(*words, "--out", tmp_path / "usual")
    if aid == "gradient_checkpointing":
        assert said["reached"] == pytest.approx(usual["reached"], abs=0.02), "less memory, the same outcome"
    assert said["trainable"] == usual["trainable"]
    assert np.isfinite(said["reached"])


def test_one_event_of_a_person_known_elsewhere_is_enough(place: Path, tmp_path: Path) -> None:
    words = ("--target", "target", "--epochs", 1, "--track", "none", "--out", tmp_path / "a")
    said = good("adapt", place / "model", place / "nearly", *words)
    assert said["steps"] == (1 if said["kept"] == "adapted" else 0)
    assert said["after"] == max(said["before"], said["reached"])
    assert 0 < said["trainable"] <= said["total"]


def test_fit_takes_the_adapter_of_the_target(place: Path, tmp_path: Path) -> None:
    words = ("fit", place / "split", "--target", "target", "--methods", "popularity", "--budget", 1, "--no-refit")
    said = good(*words, "--from", place / "adapted", "--out", tmp_path / "fitted")
    assert set(said["targets"]["target"]["valid"]) >= {"popularity"}
    assert (place / "adapted" / "plain" / "target" / "isthmus.json").is_file()
    fitted = Recommender.open(tmp_path / "fitted").targets["target"]
    tried = [row for row in fitted.log if row["method"] == "sequence"]
    assert str(tried[0]["settings"]["start"]).endswith("plain/target")
    before = (place / "adapted" / "plain" / "target" / "isthmus.json").stat().st_mtime_ns
    good(*words, "--from", place / "adapted", "--out", tmp_path / "again")
    assert (place / "adapted" / "plain" / "target" / "isthmus.json").stat().st_mtime_ns == before


def test_fit_from_scratch_beside_all_others(place: Path, tmp_path: Path) -> None:
    words = ("fit", place / "split", "--target", "target", "--methods", "all,sequence", "--budget", 1, "--no-refit")
    said = good(*words, "--out", tmp_path / "fitted")
    assert set(said["targets"]["target"]["valid"]) >= {"popularity", "knn", "tfidf", "ease"}
    log = Recommender.open(tmp_path / "fitted").targets["target"].log
    assert [row["settings"]["start"] for row in log if row["method"] == "sequence"][:1] == [""]


def test_fit_and_one_training_event_leave_the_carrier_out_or_say_so(place: Path, tmp_path: Path) -> None:
    words = ("--target", "target", "--methods", "popularity,tfidf", "--budget", 0, "--from", place / "model")
    done = isthmus("fit", place / "single", *words, "--out", tmp_path / "one")
    assert done.code in (0, 2)
    assert "Traceback" not in done.err
    zero = isthmus("fit", place / "nothing", *words, "--out", tmp_path / "zero")
    assert zero.code == 0, zero.err


def test_a_trial_says_whether_it_helped(place: Path, tmp_path: Path) -> None:
    words = ("trial", place / "split", "--target", "target", "--from", place / "model", "--seeds", 1, "--budget", 0)
    done = isthmus(*words, "--methods", "popularity,tfidf", "--shares", "0,1", "--out", tmp_path / "report")
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    (section,) = content["sections"]
    assert section["verdict"]["sentence"] in done.out.replace("\n", " ")
    assert section["verdict"]["outcome"] in ("helped", "no detectable difference", "hurt")
    assert {row["share"] for row in section["curve"]["rows"]} == {0.0, 1.0}
    assert {row["arm"] for row in section["curve"]["rows"]} >= {"transfer", "scratch", "no source", "sequence"}
    page = (tmp_path / "report" / "report.html").read_text()
    assert page.count("<svg") >= 3


def test_a_killed_run_goes_on_and_a_wrong_call_leaves_no_work(tmp_path: Path) -> None:
    def ended_by(error: BaseException) -> None:
        with working(tmp_path / "model") as work:
            work.mkdir()
            (work / "checkpoint").touch()
            raise error

    with pytest.raises(KeyboardInterrupt):
        ended_by(KeyboardInterrupt())
    with working(tmp_path / "model") as work:
        assert (work / "checkpoint").exists()
        (work / "logs").mkdir()
    assert [path.name for path in tmp_path.iterdir()] == ["model.logs"]
    with pytest.raises(InputError):
        ended_by(InputError("no"))
    assert not work.exists()


def test_a_killed_pre_training_ends_the_same(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("pretrain", place / "split", "--domains", "source", "--epochs", 2, "--track", "none")
    asked = []

    def killed(*given: object) -> float:
        asked.append(given)
        if len(asked) == 2:
            raise KeyboardInterrupt
        return validate(*given)

    monkeypatch.setattr("isthmus.transfer.pretrain.validate", killed)
    assert isthmus(*words, "--out", tmp_path / "m").code == 130
    assert (tmp_path / "m.work").is_dir()
    assert isthmus(*words, "--out", tmp_path / "m").code == 0
    assert len(asked) == 3
    assert not (tmp_path / "m.work").exists()
    whole, again = (path / "model.safetensors" for path in (place / "model", tmp_path / "m"))
    assert whole.read_bytes() == again.read_bytes()


def test_the_page_is_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(COMMANDS) == 6
    places = [replace(p, habits=(("view", 1.0), ("rate", 0.6))) for p in WORLD.places]
    a_split(tmp_path, places=tuple(places))
    (tmp_path / "split").rename(tmp_path / "SPLIT")
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        done = isthmus(*command.split()[1:])
        assert done.code == 0, f"{command}\n{done.out}{done.err}"
    split = Split.open("SPLIT")
    (program,) = blocks_of(PAGE, "python")
    space: dict[str, object] = {}
    exec(compile(program, "transfer.md", "exec"), space)
    found = Adapted.open("MODEL2", split, "target")
    assert found.score(Histories.of([[0]])).shape == (1, 40)
