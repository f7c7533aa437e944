"""The command line keeps its contract: verbs, flags, exit codes, JSON, and the whole way on a small town."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import polars as pl
import pytest
import typer
from typer.testing import CliRunner

from isthmus.cli.main import app
from isthmus.data.simulate import write_town
from isthmus.log import logger

COLUMNS = ["platform", "user", "domain", "item", "rank", "score", "item_platform"]
#: Verb -> flags of the contract.
CONTRACT = {
    "data import": {"--out"},
    "data describe": set(),
    "narrate": {"--person", "--language"},
    "split": {
        "--out",
        "--protocol",
        "--valid-share",
        "--test-share",
        "--cut",
        "--valid-users",
        "--test-users",
        "--seed",
    },
    "audit": set(),
    "encode": {"--model", "--out"},
    "search": {"--target", "--out", "--methods", "--minutes", "--trials", "--seed", "--sampler", "--pruner", "--model"},
    "fit": {"--target", "--out", "--methods", "--seed", "--budget", "--no-refit", "--model", "--from", "--members"}
    | {"--rules"},
    "pretrain": {"--domains", "--carrier", "--objective", "--epochs", "--seed", "--model", "--track", "--out"},
    "adapt": {"--target", "--strategy", "--head", "--loss", "--additive", "--epochs", "--seed", "--track", "--out"},
    "distil": {
        "--student",
        "--also",
        "--objective",
        "--kept",
        "--dim",
        "--layers",
        "--temperature",
        "--epochs",
        "--people",
        "--seed",
        "--out",
    },
    "meta": {"--target", "--from", "--way", "--epochs", "--people", "--seed", "--out"},
    "serve": {
        "--host",
        "--port",
        "--data",
        "--models",
        "--tenant",
        "--deadline",
        "--rate",
        "--burst",
        "--limits",
        "--trust",
    }
    | {"--issuer", "--audience", "--consent", "--traces", "--keep-days", "--seal", "--explore", "--no-console"},
    "trial": {"--target", "--from", "--seeds", "--shares", "--budget", "--out"},
    "classify": {
        "--target",
        "--from",
        "--label",
        "--strategy",
        "--predict",
        "--ask",
        "--share",
        "--hide-names",
        "--out",
    },
    "rate": {"--target", "--from", "--strategy", "--loss", "--pairs", "--predict", "--out"},
    "evaluate": {"--out"},
    "compare": {"--out"},
    "recommend": {"--users", "--target", "-k", "--exclude-seen", "--include-seen", "--events", "--items", "--out"}
    | {"--person", "--account", "--works", "--met-elsewhere", "--consents", "--calibrate", "--rules"},
    "similar": {"--item", "-k"},
    "works": {"--out", "--least"},
    "consistency": {"--people", "-k", "--calibrate", "--seed"},
    "ask": {"--target", "-k", "--about", "--account", "--answers", "--list", "--out"},
    "profile": {"--person", "--account", "--language", "--out"},
    "demo": {"--out"},
    "run": {"--out"},
    "doctor": {"--strict"},
    "consume": {"--to", "--key", "--letters", "--idle"},
    "backup": {"--folder"},
    "restore": {"--folder"},
}


@dataclass
class Done:
    code: int
    out: str
    err: str

    @property
    def json(self) -> object:
        return json.loads(self.out)


def isthmus(*words: object) -> Done:
    done = CliRunner().invoke(app, [str(word) for word in words])
    return Done(done.exit_code, done.stdout, done.stderr)


def good(*words: object) -> object:
    """Return the JSON of a command that must succeed."""
    done = isthmus(*words, "--json")
    assert done.code == 0, done.err
    return done.json


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    kept, level = logger.handlers, logger.level
    yield
    logger.handlers = kept
    logger.setLevel(level)


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with logs, corpus, split, model and a simpler model, all made by the command line."""
    folder = tmp_path_factory.mktemp("town")
    os.environ["ISTHMUS_TOWN_SECRET"] = "sixteen characters or more"
    spec = write_town(folder / "logs", seed=2, persons=150)
    good("data", "import", spec, "--out", folder / "corpus")
    good("split", folder / "corpus", "--out", folder / "split")
    quick = ("--budget", 5, "--methods", "popularity,knn", "--methods", "tfidf")
    good("fit", folder / "split", "--out", folder / "model", *quick)
    good("fit", folder / "split", "--target", "films", "--out", folder / "simple", "--methods", "popularity")
    return folder


def parameters(verb: str) -> list[str]:
    command = typer.main.get_command(app)
    for word in verb.split():
        command = command.commands[word]
    return [flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)]


@pytest.mark.parametrize("verb", CONTRACT)
def test_every_verb_has_its_flags_and_help(verb: str) -> None:
    assert set(parameters(verb)) >= CONTRACT[verb] | {"--json", "--verbose", "-v"}
    done = isthmus(*verb.split(), "--help")
    assert done.code == 0
    assert "Usage" in done.out


def test_no_verb_is_outside_the_contract() -> None:
    root = typer.main.get_command(app)
    leaves = {name for name, command in root.commands.items() if not hasattr(command, "commands")}
    leaves |= {f"data {name}" for name in root.commands["data"].commands}
    assert leaves == set(CONTRACT)


def test_import_and_describe_say_what_is_there(town: Path) -> None:
    found = good("data", "describe", town / "corpus")
    assert found["counts"]["items"] == 900
    assert set(found["platforms"]) == {"bookshop", "filmhouse", "jukebox"}
    shown = isthmus("data", "describe", town / "corpus")
    assert shown.code == 0
    assert "Chinese" in shown.out
    again = isthmus("data", "import", town / "logs" / "SPEC.toml", "--out", town / "again")
    assert again.code == 0
    assert "rejected" in again.out


def test_narrate_tells_in_both_languages(town: Path) -> None:
    english = good("narrate", town / "corpus")
    assert len(english) == 10
    account = pl.read_parquet(town / "corpus" / "identities.parquet").row(0, named=True)
    name = f"{account['platform']}:{account['user']}"
    (chinese,) = good("narrate", town / "corpus", "--person", name, "--language", "zh")
    assert chinese["person"] == account["person"]
    assert "然后" in chinese["text"]
    assert chinese["text"] in isthmus("narrate", town / "corpus", "--person", name, "--language", "zh").out


def test_audit_names_its_checks(town: Path) -> None:
    found = good("audit", town / "split")
    assert found["leaks"] == 0
    assert {"later events", "tied timestamps"} <= {row["check"] for row in found["findings"]}
    assert "tied timestamps" in isthmus("audit", town / "split").out


def test_audit_and_evaluate_refuse_a_leak(town: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from isthmus.split import leaks

    leak = leaks.Finding("item texts", "refuse", 7, "7 targets are named")
    monkeypatch.setattr("isthmus.pipeline.judging.audit", lambda split: [leak])
    monkeypatch.setattr(leaks, "audit", lambda split: [leak])
    done = isthmus("audit", town / "split", "--json")
    assert (done.code, done.json["leaks"]) == (2, 1)
    refused = isthmus("evaluate", town / "model", town / "split", "--out", tmp_path / "report")
    assert refused.code == 2
    assert "7 targets are named" in refused.err
    assert not (tmp_path / "report").exists()


def test_encode_writes_vectors_that_open(town: Path, tmp_path: Path) -> None:
    import isthmus as im

    said = good("encode", town / "corpus", "--out", tmp_path / "vectors")
    assert (said["items"], said["dim"]) == (900, 384)
    assert len(im.ItemVectors.open(tmp_path / "vectors")) == 900
    assert "384 dimensions" in isthmus("encode", town / "corpus").out


def test_fit_says_what_the_blend_uses(town: Path, tmp_path: Path) -> None:
    done = isthmus("fit", town / "split", "--target", "films", "--out", tmp_path / "m", "--methods", "popularity,knn")
    assert done.code == 0, done.err
    assert "knn" in done.out
    assert "cold person" in done.out


def test_evaluate_judges_the_blend_and_each_method(town: Path, tmp_path: Path) -> None:
    said = good("evaluate", town / "model", town / "split", "--out", tmp_path / "report")
    models = json.loads((tmp_path / "report" / "report.json").read_text())["models"]
    assert models == {"model": sha256((town / "model" / "model.json").read_bytes()).hexdigest()[:12]}
    assert {section["title"] for section in said["sections"]} == {"books", "films", "music"}
    for section in said["sections"]:
        assert {row["name"] for row in section["systems"]} == {"blend", "popularity", "knn", "tfidf"}
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    assert "What the blend uses" in page
    assert any("\u4e00" <= letter <= "\u9fff" for letter in page)


def test_compare_pairs_models_by_the_names_of_their_folders(town: Path, tmp_path: Path) -> None:
    done = isthmus("compare", town / "model", town / "simple", town / "split", "--out", tmp_path / "versus")
    assert done.code == 0, done.err
    content = json.loads((tmp_path / "versus" / "report.json").read_text(encoding="utf-8"))
    (section,) = content["sections"]
    assert section["title"] == "films"
    assert {row["name"] for row in section["systems"]} == {"model", "simple"}


def test_recommend_serves_everybody_in_every_domain(town: Path, tmp_path: Path) -> None:
    said = good("recommend", town / "model", "-k", 3, "--out", tmp_path / "recs.parquet")
    lists = pl.read_parquet(tmp_path / "recs.parquet")
    assert lists.columns == COLUMNS
    accounts = pl.read_parquet(town / "corpus" / "identities.parquet").height
    assert said["accounts"] == accounts
    assert lists.height == said["rows"] == accounts * 3 * 3
    best = lists.group_by("platform", "user", "domain").agg(pl.col("rank"), pl.col("score"))
    assert best["rank"].to_list() == [[1, 2, 3]] * best.height
    assert all(scores == sorted(scores, reverse=True) for scores in best["score"].to_list())


def test_recommend_writes_the_same_in_every_format(town: Path, tmp_path: Path) -> None:
    for ending in ("parquet", "csv", "jsonl"):
        good("recommend", town / "model", "--target", "books", "-k", 2, "--out", tmp_path / f"recs.{ending}")
    parquet = pl.read_parquet(tmp_path / "recs.parquet")
    csv = pl.read_csv(tmp_path / "recs.csv", schema=parquet.schema)
    assert csv.drop("score").equals(parquet.drop("score"))
    assert pl.read_ndjson(tmp_path / "recs.jsonl", schema=parquet.schema).drop("score").equals(parquet.drop("score"))


def test_exclude_seen_leaves_out_and_include_seen_lets_in(town: Path, tmp_path: Path) -> None:
    known = pl.read_parquet(town / "corpus" / "events.parquet").select("platform", "user", "item").unique()
    for flag, seen in (("--exclude-seen", False), ("--include-seen", True)):
        path = tmp_path / f"{seen}.parquet"
        good("recommend", town / "model", "--target", "films", "-k", 10, flag, "--out", path)
        own = pl.read_parquet(path).filter(pl.col("platform") == "filmhouse")
        shown = own.join(known, on=["platform", "user", "item"], how="semi").height / own.height
        # what is only in the test part is not known to the model, so a little may come again
        assert shown > 0.1 if seen else shown < 0.1


def test_unknown_people_new_events_and_new_items_need_no_fit(town: Path, tmp_path: Path) -> None:
    film = pl.read_parquet(town / "corpus" / "items.parquet").filter(pl.col("domain") == "films").row(0, named=True)
    (tmp_path / "users.tsv").write_text("platform\tuser\nfilmhouse\t007\nfilmhouse\tnobody\n", encoding="utf-8")
    (tmp_path / "since.jsonl").write_text(
        json.dumps({"platform": "filmhouse", "user": "007", "item": film["item"], "event": "like"}) + "\n"
    )
    new = {"platform": "filmhouse", "item": "premiere", "domain": "films", "title": film["title"] + " 续集"}
    (tmp_path / "new.jsonl").write_text(json.dumps({**new, "categories": film["categories"]}) + "\n", encoding="utf-8")
    words = ("--users", tmp_path / "users.tsv", "--events", tmp_path / "since.jsonl", "--items", tmp_path / "new.jsonl")
    good("recommend", town / "model", "--target", "films", "-k", 301, "--out", tmp_path / "recs.csv", *words)
    lists = pl.read_csv(tmp_path / "recs.csv", infer_schema=False)
    assert lists["user"].unique().sort().to_list() == ["007", "nobody"]
    place = {row["user"]: int(row["rank"]) for row in lists.filter(pl.col("item") == "premiere").to_dicts()}
    assert place["007"] < place["nobody"]
    assert film["item"] not in lists.filter(pl.col("user") == "007")["item"].to_list()
    near = good("similar", town / "model", "--item", "filmhouse:premiere", "--items", tmp_path / "new.jsonl", "-k", 5)
    assert film["item"] in [row["item"] for row in near if row["domain"] == "films"]


def test_similar_names_titles(town: Path) -> None:
    item = pl.read_parquet(town / "corpus" / "items.parquet").row(3, named=True)
    rows = good("similar", town / "model", "--item", f"{item['platform']}:{item['item']}", "-k", 4)
    assert len(rows) == 12
    assert all(row["title"] for row in rows)
    shown = isthmus("similar", town / "model", "--item", f"{item['platform']}:{item['item']}", "-k", 4)
    assert rows[0]["item"] in shown.out


def test_without_a_test_part_validation_chooses_and_nothing_is_measured(town: Path, tmp_path: Path) -> None:
    said = good("split", town / "corpus", "--out", tmp_path / "split", "--test-share", 0)
    assert said["events"]["test"] == 0
    good("fit", tmp_path / "split", "--out", tmp_path / "model", "--methods", "popularity,knn", "--budget", 1)
    good("recommend", tmp_path / "model", "--out", tmp_path / "recs.parquet")
    refused = isthmus("evaluate", tmp_path / "model", tmp_path / "split", "--out", tmp_path / "report")
    assert refused.code == 2
    assert "test share above 0" in refused.err


def test_a_model_is_measured_on_its_own_split_only(town: Path, tmp_path: Path) -> None:
    good("split", town / "corpus", "--out", tmp_path / "other", "--test-share", 0.2)
    done = isthmus("evaluate", town / "model", tmp_path / "other", "--out", tmp_path / "report")
    assert done.code == 2
    assert "another split" in done.err


def test_split_by_dates_by_place_by_people_and_few_shot(town: Path, tmp_path: Path) -> None:
    cuts = ("--cut", "2024-10-01", "--cut", "2024-11-15T00:00:00Z")
    assert good("split", town / "corpus", "--out", tmp_path / "a", *cuts)["cuts"]["test"].startswith("2024-11-15")
    last = ("--protocol", "leave-last")
    assert good("split", town / "corpus", "--out", tmp_path / "b", *last)["protocol"] == "leave-last"
    accounts = pl.read_parquet(town / "corpus" / "identities.parquet").filter(pl.col("platform") == "bookshop")
    taste = pl.read_parquet(town / "corpus" / "events.parquet").select("platform", "user").unique()
    accounts = accounts.join(taste, on=["platform", "user"], how="semi").unique("person").sort("user")
    for name, rows in (("valid", accounts[:20]), ("test", accounts[20:40])):
        rows.select("platform", "user").write_csv(tmp_path / f"{name}.csv")
    people = ("--valid-users", tmp_path / "valid.csv", "--test-users", tmp_path / "test.csv")
    held = good("split", town / "corpus", "--out", tmp_path / "c", *last, *people)
    assert (held["events"]["valid"], held["events"]["test"]) == (20, 20)
    assert held["events"]["context"] > 0
    few = good("split", town / "corpus", "--out", tmp_path / "d", "--few-shot", "films", "--keep", 1, "--seed", 4)
    assert few["few-shot"] == {"domain": "films", "keep": 1, "share": 0.5, "seed": 4}
    assert "protocol" in isthmus("split", town / "corpus", "--out", tmp_path / "e").out


def test_doctor_looks_at_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = good("doctor")
    assert said["ok"]
    names = {check["name"] for check in said["checks"]}
    assert {"python", "torch", "language model", "cache", "disk", "ISTHMUS_DATA", "packages: text"} <= names
    monkeypatch.setattr("isthmus.cli.doctor._version", lambda name: "" if name == "polars" else "1.0")
    broken = isthmus("doctor")
    assert broken.code == 1
    assert "missing polars" in broken.out


def test_doctor_sees_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("ISTHMUS_CACHE", str(tmp_path / "file" / "cache"))
    done = isthmus("doctor", "--json")
    assert done.code == 1
    assert next(check for check in done.json["checks"] if check["name"] == "cache")["level"] == "fail"


def test_a_terminal_without_utf_8_gets_escapes(town: Path) -> None:
    command = [str(Path(sys.executable).parent / "isthmus"), "narrate", str(town / "corpus"), "--language", "zh"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    for more in ([], ["--json"]):
        done = subprocess.run([*command, *more], capture_output=True, check=False, env=environment, timeout=100)
        assert done.returncode == 0, done.stderr
        assert b"\\u7136\\u540e" in done.stdout
    assert "然后" in json.loads(done.stdout)[0]["text"]


def test_a_real_process_keeps_its_output_clean(town: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "isthmus"), "encode", str(town / "corpus"), "--json"]
    environment = {**os.environ, "ISTHMUS_CACHE": str(tmp_path / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["items"] == 900
    assert done.stderr == ""
