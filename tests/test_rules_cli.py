"""Declared rules the whole way on the command line: in the spec, at fit, at recommend; conflicts told."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from tests.test_cli import Done, good, isthmus

from isthmus.data.corpus import Corpus
from isthmus.recommender import Recommender
from isthmus.recommender.constrained import constrained

SPEC = """
name = "volumes"
[clean]
bot_gap_bits = 0
[[source]]
kind = "events"
platform = "shop"
domain = "books"
path = "events.csv"
columns = { user = "user", item = "item", ts = "ts" }
event = "purchase"
time = "iso"
[[source]]
kind = "items"
platform = "shop"
domain = "books"
path = "items.csv"
columns = { item = "item", title = "title" }
[[source]]
kind = "links"
platform = "shop"
path = "links.csv"
columns = { item = "item", entity = "entity" }
"""
RULES = """
[[source]]
kind = "rules"
path = "rules.csv"
columns = { rule = "rule", head = "head", tail = "tail", weight = "weight" }
"""
DECLARED = "rule,head,tail,weight\nnot before,shop:v2,shop:v1,\nafter,shop:v1,shop:v2,9\nexcludes,三体,shop:b3,\n"


def write(folder: Path, spec: str, rules: str = DECLARED) -> Path:
    """Write a shop of eight books: v1 and v2 are volumes, b0 is what everybody reads."""
    folder.mkdir(exist_ok=True)
    books = ["v1", "v2", *(f"b{n}" for n in range(6))]
    rows = [
        f"u{u},{books[(u * 3 + step * step) % 8]},2024-01-{1 + (u + 5 * step) % 28:02d}T0{step}:00:00Z"
        for u in range(40)
        for step in range(4)
    ]
    (folder / "events.csv").write_text("\n".join(["user,item,ts", *rows]) + "\n", "utf-8")
    (folder / "items.csv").write_text("\n".join(["item,title", *(f"{b},book {b}" for b in books)]) + "\n", "utf-8")
    (folder / "links.csv").write_text("item,entity\nb1,三体\n", "utf-8")
    (folder / "rules.csv").write_text(rules, "utf-8")
    (folder / "SPEC.toml").write_text(spec, "utf-8")
    (folder / "asked.csv").write_text("platform,user\nshop,newcomer\nshop,reader\nshop,fan\n", "utf-8")
    (folder / "since.csv").write_text("platform,user,item\nshop,reader,v1\nshop,fan,b1\n", "utf-8")
    return folder


def lists(folder: Path, model: str, *more: object) -> dict[str, list[str]]:
    """Return each person's list of all that may be listed."""
    out = folder / "lists.csv"
    good("recommend", folder / model, "--users", folder / "asked.csv", "--events", folder / "since.csv", "-k", 8,
         "--out", out, *more)  # fmt: skip
    table = pl.read_csv(out)
    return {user: group["item"].to_list() for (user,), group in table.group_by("user")}


def fit(folder: Path, model: str, *more: object) -> Done:
    done = isthmus("fit", folder / "split", "--out", folder / model, "--methods", "popularity,knn", *more)
    assert done.code == 0, done.err
    return done


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop with rules in its spec, a model of it, and a corpus without rules with a model."""
    folder = write(tmp_path_factory.mktemp("rules"), SPEC + RULES)
    good("data", "import", folder / "SPEC.toml", "--out", folder / "corpus")
    good("split", folder / "corpus", "--out", folder / "split", "--protocol", "leave-last")
    fit(folder, "ruled")
    plain = write(folder / "plain", SPEC)
    good("data", "import", plain / "SPEC.toml", "--out", plain / "corpus")
    good("split", plain / "corpus", "--out", plain / "split", "--protocol", "leave-last")
    fit(plain, "model")
    return folder


def kept(found: dict[str, list[str]]) -> None:
    assert "v2" not in found["newcomer"]
    assert found["reader"][0] == "v2", "who has the first volume is offered the second"
    assert "b3" not in found["fan"]
    assert "b3" in found["reader"]


def test_rules_of_the_spec_are_kept_by_every_list(shop: Path) -> None:
    assert Corpus.open(shop / "corpus").rules.height == 3
    kept(lists(shop, "ruled"))
    free = lists(shop / "plain", "model")
    assert "v2" in free["newcomer"]
    assert "b3" in free["fan"]
    assert not (shop / "plain" / "corpus" / "rules.parquet").exists()
    assert Corpus.open(shop / "plain" / "corpus").rules.height == 0


def test_a_file_of_rules_does_the_same_at_fit_and_at_recommend(shop: Path) -> None:
    plain = shop / "plain"
    kept(lists(plain, "model", "--rules", _without_entities(plain)))
    said = fit(plain, "filed", "--rules", plain / "rules.csv").out
    assert "rules that lists keep" in said
    assert "not before" in said
    kept(lists(plain, "filed"))


def _without_entities(folder: Path) -> Path:
    """A model that looks at no graph knows no entities: the rule names the item itself."""
    file = folder / "direct.csv"
    file.write_text(DECLARED.replace("三体", "shop:b1"), "utf-8")
    return file


def test_reports_and_new_items_keep_the_rules(shop: Path) -> None:
    model = Recommender.open(shop / "ruled")
    more = pl.DataFrame({"rule": ["excludes"], "head": ["shop:v1"], "tail": ["shop:b5"]})
    ruled = constrained(model, more).save(shop / "both")
    assert ruled.card["rules"] == {"declared": {"after": 1, "excludes": 2, "not before": 1}, "problems": []}
    found = lists(shop, "both")
    kept(found)
    assert "b5" not in found["reader"]
    (shop / "new.csv").write_text("platform,item,domain,title\nshop,n1,books,a new one\n", "utf-8")
    kept(lists(shop, "both", "--items", shop / "new.csv"))
    good("evaluate", shop / "ruled", shop / "split", "--out", shop / "report")
    page = (shop / "report" / "report.html").read_text("utf-8")
    assert "Declared rules kept by every list: after 1, excludes 1, not before 1" in page


def test_conflicts_are_told(shop: Path) -> None:
    file = shop / "clash.csv"
    file.write_text(
        "rule,head,tail\nnot before,shop:v1,shop:v2\nnot before,shop:v2,shop:v1\nafter,shop:x,shop:b1\n", "utf-8"
    )
    plain = shop / "plain"
    told = json.loads(fit(plain, "clash", "--rules", file, "--json").out)["rules"]
    assert told["declared"] == {"after": 1, "not before": 2}
    assert any("wait for each other" in problem for problem in told["problems"])
    assert any("no item or entity 'shop:x'" in problem for problem in told["problems"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("rule,head,tail\nafer,shop:v1,shop:v2\n", "did you mean 'after'"),
        ("head,tail\nshop:v1,shop:v2\n", "lacks column(s) rule"),
        ("rule,head,tail,weight\nafter,shop:v1,shop:v2,much\n", "the weight 'much' is no number"),
        ("rule,head,tail\nafter,shop:v1,\n", "empty cell"),
    ],
)
def test_bad_rules_are_named(shop: Path, tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "rules.csv"
    file.write_text(content, "utf-8")
    plain = shop / "plain"
    done = isthmus("recommend", plain / "model", "--out", tmp_path / "l.csv", "--rules", file)
    assert done.code == 2
    assert said in " ".join(done.err.split())


def test_a_spec_counts_rules_it_cannot_use(tmp_path: Path) -> None:
    bad = "after,shop:v1,shop:v2,1\nafter,shop:v1,shop:v2,2\nafer,shop:b1,shop:b2,1\nafter,shop:b1,shop:b2,inf\n"
    folder = write(tmp_path / "shop", SPEC + RULES, "rule,head,tail,weight\n" + bad)
    good("data", "import", folder / "SPEC.toml", "--out", folder / "corpus")
    corpus = Corpus.open(folder / "corpus")
    assert corpus.rules.rows() == [("after", "shop:v1", "shop:v2", 1.0)]
    assert corpus.manifest["rejects"] == {
        "no such rule (rules: after, not before, excludes)": 1, "weight is no number": 1,
    }  # fmt: skip
