"""The whole way in one call: what it writes, what it does not do twice, and how models are judged."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import town_tables, write_town
from isthmus.errors import DataError, InputError, LeakError
from isthmus.pipeline import RunSettings, Step, compare, demo, evaluate, frames, judging, run, steps
from isthmus.recommender import Recommender
from isthmus.split.temporal import Split
from isthmus.train.fit import FitSettings

QUICK = RunSettings(methods=("popularity", "knn", "tfidf"), budget=1.0, k=4)
ORDER = ["import", "split", "fit", "evaluate", "recommend"]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    corpus = Corpus.from_tables(town_tables(seed=1, persons=150), name="town")
    return Split.make(corpus.save(tmp_path_factory.mktemp("corpus") / "corpus"))


@pytest.fixture(scope="module")
def model(split: Split) -> Recommender:
    return Recommender.fit(split, settings=FitSettings(methods=("popularity", "knn"), budget=1.0))


@pytest.fixture
def spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ISTHMUS_TOWN_SECRET", "sixteen characters or more")
    return write_town(tmp_path / "logs", seed=2, persons=120)


@pytest.fixture
def sequences(tmp_path: Path) -> Path:
    """A spec of a file that has an order and no times."""
    lines = "\n".join(f"u{row}\t{','.join(str((row + step) % 9) for step in range(5))}" for row in range(40))
    (tmp_path / "train.txt").write_text(lines + "\n")
    sequence = 'sequence = { item_delimiter = "," }'
    (tmp_path / "SPEC.toml").write_text(
        f'name = "s"\n[[source]]\nkind = "events"\nplatform = "shop"\npath = "train.txt"\nformat = "sequence"\n'
        f'event = "purchase"\n{sequence}\n'
    )
    return tmp_path / "SPEC.toml"


def done(made: list[Step]) -> dict[str, bool]:
    """Return step to whether it was found done."""
    return {step.name: step.kept for step in made}


def test_run_writes_everything_and_tells_each_step(spec: Path, tmp_path: Path) -> None:
    told: list[Step] = []
    made = run(spec, tmp_path / "out", QUICK, tell=told.append)
    assert made == told
    assert [step.name for step in made] == ORDER
    assert not any(step.kept for step in made)
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {"corpus", "split", "model", "report", "recs.parquet", "run.json"}
    lists = pl.read_parquet(out / "recs.parquet")
    assert lists.columns == list(frames.LISTS)
    assert lists["rank"].max() == 4
    assert Recommender.open(out / "model").card["refit"] is True


def test_a_finished_run_does_nothing_again(spec: Path, tmp_path: Path) -> None:
    run(spec, tmp_path / "out", QUICK)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert all(done(run(spec, tmp_path / "out", QUICK)).values())
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}


def test_an_interrupted_run_goes_on_where_it_stopped(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(steps, "evaluate", stopped)
        with pytest.raises(KeyboardInterrupt):
            run(spec, tmp_path / "out", QUICK)
    assert not (tmp_path / "out" / "report").exists()
    again = done(run(spec, tmp_path / "out", QUICK))
    assert again == {"import": True, "split": True, "fit": True, "evaluate": False, "recommend": False}


def test_only_what_a_change_concerns_is_done_again(spec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(spec, out, QUICK)
    longer = done(run(spec, out, replace(QUICK, k=5)))
    assert [name for name, kept in longer.items() if not kept] == ["recommend"]
    other = done(run(spec, out, replace(QUICK, methods=("popularity",))))
    assert [name for name, kept in other.items() if not kept] == ["fit", "evaluate", "recommend"]
    log = tmp_path / "logs" / "filmhouse" / "log.jsonl"
    os.utime(log, ns=(1, 1))
    touched = done(run(spec, out, replace(QUICK, methods=("popularity",))))
    assert [name for name, kept in touched.items() if not kept] == ["import"]
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    log.write_text("".join(lines[: len(lines) // 2]), encoding="utf-8")
    assert not any(done(run(spec, out, replace(QUICK, methods=("popularity",)))).values())


def test_a_lost_artefact_is_made_again(spec: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run(spec, out, QUICK)
    (out / "recs.parquet").unlink()
    assert [name for name, kept in done(run(spec, out, QUICK)).items() if not kept] == ["recommend"]
    (out / "run.json").write_text("{")
    assert not any(done(run(spec, out, QUICK)).values())


def test_without_test_there_is_no_report_and_an_old_one_goes(spec: Path, tmp_path: Path) -> None:
    run(spec, tmp_path / "out", QUICK)
    made = run(spec, tmp_path / "out", replace(QUICK, test_share=0.0))
    assert [step.name for step in made] == ["import", "split", "fit", "recommend"]
    assert not (tmp_path / "out" / "report").exists()


def test_logs_without_dates_are_split_by_leave_last(sequences: Path, tmp_path: Path) -> None:
    run(sequences, tmp_path / "out", replace(QUICK, methods=("popularity", "knn")))
    assert Split.open(tmp_path / "out" / "split").card["protocol"] == "leave-last"
    with pytest.raises(InputError, match="no dates"):
        run(sequences, tmp_path / "out", replace(QUICK, protocol="time"))


def test_text_is_read_before_the_fit_and_only_then(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str | None] = []
    monkeypatch.setattr(steps, "_encode", lambda corpus, model: asked.append(model) or "read")
    settings = replace(QUICK, methods=("popularity", "text"))
    assert [step.name for step in run(spec, tmp_path / "out", settings)] == ["import", "split", "encode", *ORDER[2:]]
    assert [step.name for step in run(spec, tmp_path / "out", settings)] == ORDER
    assert asked == [None]


def test_a_file_where_the_folder_should_be_is_refused(spec: Path) -> None:
    with pytest.raises(InputError, match="is a file"):
        run(spec, spec, QUICK)


def test_the_demonstration_is_small_enough_and_repeatable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ISTHMUS_TOWN_SECRET", raising=False)
    seen: list[RunSettings] = []
    whole = steps.run

    def quick(spec: Path, out: Path, settings: RunSettings, *, tell: object) -> list[Step]:
        seen.append(settings)
        return whole(spec, out, replace(settings, methods=("popularity", "knn")))

    monkeypatch.setattr("isthmus.pipeline.town.run", quick)
    assert not any(done(demo(tmp_path / "town", persons=100, budget=1.0)).values())
    assert all(done(demo(tmp_path / "town", persons=100, budget=1.0)).values())
    assert not any(done(demo(tmp_path / "town", persons=100, budget=1.0, seed=5)).values())
    assert not any(done(demo(tmp_path / "town", persons=100, budget=1.0)).values())
    assert [settings.seed for settings in seen] == [0, 0, 5, 0]
    os.environ.pop("ISTHMUS_TOWN_SECRET", None)


def test_evaluate_compares_the_blend_with_each_method(model: Recommender, split: Split) -> None:
    report = evaluate(model, split, ks=(5, 10)).data
    assert [section["title"] for section in report["sections"]] == ["books", "films", "music"]
    for section in report["sections"]:
        assert section["main"] == "blend"
        assert {row["name"] for row in section["systems"]} == {"blend", "popularity", "knn"}
        assert section["ks"] == [5, 10]
        assert section["examples"]
        assert {row["method"] for row in section["tuning"]} == {"popularity", "knn"}
        assert all(isinstance(row["settings"], str) for row in section["tuning"])
        assert set(section["blend"]["warm person"]) == {"popularity", "knn"}
        assert all(row["opposite"] for row in section["systems"])
    assert report["audit"] is not None
    assert report["protocol"]["protocol"] == "time"


def test_evaluate_can_leave_the_methods_out(model: Recommender, split: Split) -> None:
    report = evaluate(model, split, methods=False, both=False).data
    assert [[row["name"] for row in section["systems"]] for section in report["sections"]] == [["blend"]] * 3
    assert report["sections"][0]["systems"][0]["opposite"] is None


def test_seeds_fit_again_and_show_the_spread(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    once = Recommender.fit(split, targets=["books"], settings=FitSettings(methods=("knn", "popularity"), budget=1.0))
    used: list[FitSettings] = []

    def spy(split: Split, *, targets: list[str], model: str | None, settings: FitSettings) -> Recommender:
        used.append(settings)
        return once

    monkeypatch.setattr(judging.Recommender, "fit", spy)
    spread = evaluate(once, split, seeds=(1, 2)).data["sections"][0]["seeds"]
    assert {row["metric"] for row in spread} >= {"ndcg@10"}
    assert all(row["seeds"] == 3 for row in spread)
    assert [settings.seed for settings in used] == [1, 2]
    assert all(set(settings.methods) == {"knn", "popularity"} and settings.budget == 1.0 for settings in used)


def test_a_model_never_meets_a_split_it_was_not_fitted_on(model: Recommender, split: Split) -> None:
    with pytest.raises(LeakError, match="another split"):
        evaluate(model, Split.make(split.corpus, test_share=0.2))
    other = Corpus.from_tables(town_tables(seed=2, persons=60), name="elsewhere")
    with pytest.raises(DataError, match="another corpus"):
        evaluate(model, Split.make(other))
    with pytest.raises(LeakError, match="another split"):
        compare([("a", model), ("b", model)], Split.make(split.corpus, test_share=0.2))


def test_a_saved_model_is_known_to_be_of_its_split(model: Recommender, split: Split, tmp_path: Path) -> None:
    split.save(tmp_path / "split")
    model.save(tmp_path / "model")
    judging.check_pair(Recommender.open(tmp_path / "model"), Split.open(tmp_path / "split"))


def test_no_test_events_is_an_error_that_says_so(split: Split) -> None:
    untested = Split.make(split.corpus, test_share=0.0)
    fitted = Recommender.fit(untested, targets=["books"], settings=FitSettings(methods=("knn",), budget=1.0))
    with pytest.raises(InputError, match="no target domain has test events"):
        evaluate(fitted, untested)


def test_a_model_does_not_differ_from_itself(model: Recommender, split: Split) -> None:
    report = compare([("one", model), ("two", model)], split).data
    for section in report["sections"]:
        test = next(row["test"] for row in section["systems"] if row["name"] == "two")
        assert test["difference"] == 0
        assert test["p_holm"] == 1


@pytest.mark.parametrize("names", [[], ["one"], ["one", "one"]])
def test_compare_needs_models_of_different_names(names: list[str], model: Recommender, split: Split) -> None:
    with pytest.raises(InputError, match="cannot compare"):
        compare([(name, model) for name in names], split)


def test_compare_takes_the_domains_that_all_serve(model: Recommender, split: Split) -> None:
    books = Recommender.fit(split, targets=["books"], settings=FitSettings(methods=("knn",), budget=1.0))
    report = compare([("all", model), ("books", books)], split).data
    assert [section["title"] for section in report["sections"]] == ["books"]
    music = Recommender.fit(split, targets=["music"], settings=FitSettings(methods=("knn",), budget=1.0))
    with pytest.raises(InputError, match="no target domain"):
        compare([("books", books), ("music", music)], split)


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "ndjson", "parquet"])
@pytest.mark.parametrize("names", [["007", "深海"], ["007", "042"]])
def test_users_are_read_as_text_from_every_format(ending: str, names: list[str], tmp_path: Path) -> None:
    users = pl.DataFrame({"user": names, "platform": ["shop", "shop"], "more": [1, 2]})
    path = tmp_path / f"users.{ending}"
    if ending == "parquet":
        users.write_parquet(path)
    elif ending in ("csv", "tsv"):
        users.write_csv(path, separator="\t" if ending == "tsv" else ",", include_bom=True)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in users.to_dicts()), encoding="utf-8")
    assert frames.read_users(path).rows() == [("shop", name) for name in names]


def test_numbers_as_ids_become_text(tmp_path: Path) -> None:
    (tmp_path / "users.jsonl").write_text('{"platform": "shop", "user": 12}\n{"platform": "shop", "user": 7}\n')
    assert frames.read_users(tmp_path / "users.jsonl").rows() == [("shop", "12"), ("shop", "7")]


def test_nothing_is_dropped_silently(tmp_path: Path) -> None:
    path = tmp_path / "events.csv"
    path.write_text("platform,user,item,event\nshop,1,a,\nshop,1,b,like\n")
    assert frames.read_events(path)["event"].to_list() == ["click", "like"]
    path.write_text("platform,user,item\nshop,1,a\nshop,,b\n")
    for read in (frames.read_events, frames.read_users):
        with pytest.raises(DataError, match=r"1 empty cell\(s\) in column user"):
            read(path)


def test_new_items_have_lists_of_categories(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("platform,item,domain,categories,title\nshop,1,books,a|b,深海\n", "utf-8")
    listed = [{"platform": "shop", "item": "1", "domain": "books", "categories": ["a", "b"], "title": "深海"}]
    (tmp_path / "items.jsonl").write_text(json.dumps(listed[0]) + "\n", encoding="utf-8")
    for name in ("items.csv", "items.jsonl"):
        assert frames.read_items(tmp_path / name).select(list(listed[0])).to_dicts() == listed
