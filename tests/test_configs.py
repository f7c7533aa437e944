"""Every ready spec imports its data set: real ones with the counts known of them, public formats from made-up files."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from isthmus.data.corpus import Corpus
from isthmus.data.importer import import_corpus
from isthmus.data.spec import read_spec
from public_formats import MAKERS, rows

CONFIGS = Path(__file__).parents[1] / "configs"
KEYS = ["platform", "item"]

REAL = {
    "fedcsr": {"events": 202_402, "identities": 16_579, "items": 58_888},
    "llmcdsr": {"events": 436_127, "identities": 53_061, "items": 36_298},
    "beauty_sports_toys": {"events": 662_436, "identities": 77_373, "items": 42_382},
    "five_platforms": {"events": 864_838, "identities": 77_373 + 2 * 16_579, "items": 58_888 + 42_382},
    "movielens_latest_small": {"events": 100_836, "identities": 610, "items": 9_742, "edges": 35_355},
    "movielens_latest_small_tags": {"events": 100_836, "identities": 610, "items": 9_742, "links": 9_742},
    "ml1m_dbpedia_kg": {"events": 0, "items": 3_300, "links": 3_300, "edges": 35_355},
    "lastfm": {"events": 92_834, "identities": 1_892, "items": 17_632, "edges": 112_858},
    "lastfm_tags": {"events": 85_011, "identities": 1_892},
    "librarything": {"identities": 7_223, "items": 9_037, "edges": 47_082},
    "steam_australian": {"events": 49_065},
    "steam200k": {"identities": 12_393, "items": 5_155},
    "douban_books_doulists": {"events": 110_446, "items": 67_125},
    "douban_books_catalog": {"events": 0, "items": 6_624},
}
PUBLIC = list(MAKERS)


def titled(corpus: Corpus) -> pl.DataFrame:
    return corpus.events.join(corpus.items.filter(pl.col("title").is_not_null()), on=KEYS)


def met(corpus: Corpus) -> int:
    return corpus.events.select(KEYS).n_unique()


def check_fedcsr(corpus: Corpus) -> None:
    events = titled(corpus)
    assert events.height == 159_306
    items = events.select("domain", "item").unique().group_by("domain").len()
    assert dict(items.iter_rows()) == {"Food": 8_217, "Kitchen": 21_029}
    assert (events.group_by("user").agg(pl.col("domain").n_unique())["domain"] == 2).sum() == 15_654
    assert corpus.items["title"].str.contains("&(amp|quot|#39);").sum() == 0
    assert events["ts"].dt.year().is_between(2003, 2014).all()


def check_llmcdsr(corpus: Corpus) -> None:
    files = corpus.identities.group_by(pl.col("user").str.extract("^(.*)-")).len()
    assert dict(files.iter_rows()) == {
        "train_A": 5_472, "train_B": 38_191, "train_overlap": 7_501, "valid": 960, "test": 937,
    }  # fmt: skip
    assert dict(corpus.items.group_by("domain").len().iter_rows()) == {"Food": 8_661, "Kitchen": 27_637}
    assert corpus.items["title"].null_count() == 0
    assert corpus.order_only == ["amazon"]
    last = corpus.events.filter(pl.col("user") == "test-1").sort("ts")
    assert last.height == 19  # test.txt, line 1: 150,10198,…,2156,712
    domains = last.join(corpus.items, on=KEYS, maintain_order="left")["domain"]
    assert [domains[0], domains[1], domains[-2], domains[-1]] == ["Food", "Kitchen", "Food", "Food"]


def check_beauty_sports_toys(corpus: Corpus) -> None:
    by = corpus.events.group_by("platform").agg(pl.len(), pl.col("user").n_unique(), pl.col("item").n_unique())
    assert {row[0]: row[1:] for row in by.iter_rows()} == {
        "beauty": (198_502, 22_363, 12_101),
        "sports": (296_337, 35_598, 18_357),
        "toys": (167_597, 19_412, 11_924),
    }
    assert corpus.items["title"].null_count() == 6  # one without words, and "title", "na": no titles
    for both in overlaps(corpus).values():
        assert 1_600 <= both <= 3_400


def check_five_platforms(corpus: Corpus) -> None:
    pairs = overlaps(corpus)
    assert len(pairs) == 10
    assert pairs["food", "kitchen"] == 16_579
    assert all(both > 500 for both in pairs.values())


def overlaps(corpus: Corpus) -> dict[tuple[str, str], int]:
    accounts = corpus.identities.select("platform", "person").unique()
    pairs = accounts.join(accounts, on="person", suffix="_2").filter(pl.col("platform") < pl.col("platform_2"))
    return {(a, b): n for a, b, n in pairs.group_by("platform", "platform_2").len().iter_rows()}


def check_movielens_latest_small(corpus: Corpus) -> None:
    assert met(corpus) == 9_724
    assert corpus.events["value"].n_unique() == 10
    told = corpus.links.join(corpus.edges, left_on="entity", right_on="head")["item"].unique()
    assert told.is_in(corpus.items["item"].implode()).sum() == 2_574
    toy_story = corpus.items.filter(pl.col("item") == "1").row(0, named=True)
    assert toy_story["title"] == "Toy Story (1995)"
    assert "Comedy" in toy_story["categories"]


def check_movielens_latest_small_tags(corpus: Corpus) -> None:
    assert corpus.items["text"].is_not_null().sum() == 1_572
    assert "pixar" in corpus.items.filter(pl.col("item") == "1")["text"][0]


def check_ml1m_dbpedia_kg(corpus: Corpus) -> None:
    assert corpus.edges["relation"].n_unique() == 10


def check_lastfm(corpus: Corpus) -> None:
    assert met(corpus) == 17_632
    assert corpus.edges["relation"].n_unique() == 12
    assert corpus.events["value"].max() > 100_000
    assert corpus.order_only == ["lastfm"]


def check_lastfm_tags(corpus: Corpus) -> None:
    assert corpus.manifest["rejects"] == {"time before 2002-01-01": 5}
    assert corpus.manifest["cleaning"]["duplicates"] + corpus.events.height + 5 == 186_479


def check_librarything(corpus: Corpus) -> None:
    assert corpus.events.select("user", "item").n_unique() == 115_356
    assert met(corpus) == 9_037
    assert corpus.items["title"].null_count() == 0
    assert corpus.events["value"].is_between(0, 1).all()


def check_steam_australian(corpus: Corpus) -> None:
    assert corpus.manifest["rejects"]["no time"] == 10_091
    assert corpus.events.height + corpus.manifest["cleaning"]["duplicates"] == 59_161 - 10_091
    assert corpus.items.filter(pl.col("title").is_not_null()).height >= 32_130
    assert corpus.items["categories"].list.len().max() > 3
    assert not corpus.items["text"].str.contains('["', literal=True).any()


def check_steam200k(corpus: Corpus) -> None:
    by = dict(corpus.events.group_by("event").len().iter_rows())
    assert by["purchase"] + corpus.manifest["cleaning"]["duplicates"] == 129_511
    assert by["play"] == 70_489
    play = corpus.events.filter((pl.col("event") == "play") & (pl.col("user") == "1") & (pl.col("item") == "1"))
    assert play["value"].to_list() == [273.0 * 3600]


def check_douban_books_doulists(corpus: Corpus) -> None:
    assert corpus.persons.len() == 481 - 12  # lists that hold no book
    assert corpus.items.filter(pl.col("item") == "07015927")["title"].to_list() == ["The Optimism Bias"]
    assert corpus.items["title"].str.contains(r"\p{Han}").mean() > 0.6


def check_douban_books_catalog(corpus: Corpus) -> None:
    assert corpus.items["text"].is_not_null().sum() == 1_840
    assert corpus.items["title"].is_not_null().sum() == 6_584  # 6,585 rows, one id twice


@pytest.mark.real
@pytest.mark.parametrize("name", REAL)
def test_real_data_sets_import_with_their_known_counts(
    name: str, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISTHMUS_DATA", str(real_data.resolve()))
    corpus = import_corpus(CONFIGS / f"{name}.toml", tmp_path / "corpus")
    counts = corpus.manifest["counts"]
    assert counts | REAL[name] == counts
    globals()[f"check_{name}"](corpus)


#: events, persons, items
EXPECTED = {
    "amazon_reviews_2014": (12, 3, 4),
    "amazon_reviews_2018": (12, 3, 4),
    "amazon_reviews_2023": (12, 3, 4),
    "douban_csv": (18, 3, 6),
    "goodbooks_10k": (7, 3, 3),
    "movielens_1m": (6, 3, 2),
    "movielens_20m_25m": (4, 2, 2),
    "recbole": (6, 3, 2),
}


@pytest.fixture
def public(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    for key, value in MAKERS[request.param](tmp_path).items():
        monkeypatch.setenv(key, value)
    return import_corpus(CONFIGS / f"{request.param}.toml", tmp_path / "corpus")


@pytest.mark.parametrize(("public", "name"), [(name, name) for name in PUBLIC], indirect=["public"])
def test_public_formats_import(public: Corpus, name: str) -> None:
    assert (public.events.height, public.persons.len(), public.items.height) == EXPECTED[name]
    assert public.manifest["rejects"] == {}
    assert public.events["value"].drop_nulls().is_between(0, 1).all()
    assert public.events["event"].is_in(["rate", "cart"]).all()


def by_item(corpus: Corpus, item: str) -> dict[str, object]:
    return corpus.items.filter(pl.col("item") == item).row(0, named=True)


@pytest.mark.parametrize("public", PUBLIC[:3], indirect=True)
def test_amazon_items_keep_their_words_and_zeros(public: Corpus) -> None:
    item = by_item(public, "0000A")
    assert item["title"] == "Bob's & Ann's"
    assert item["categories"] == ["Top", "Sub"]
    assert public.events["value"].unique().to_list() == [0.75]
    assert public.identities["person"].n_unique() == 3


@pytest.mark.parametrize("public", ["douban_csv"], indirect=True)
def test_douban_days_are_days_in_shanghai(public: Corpus) -> None:
    assert str(public.events["ts"].min()) == "2019-04-30 16:00:00+00:00"
    item = by_item(public, "007")
    assert (item["title"], item["text"], item["categories"]) == ("深海潜水", "讲述大海", ["海洋", "纪实"])


@pytest.mark.parametrize("public", ["movielens_1m"], indirect=True)
def test_latin_1_and_double_colons(public: Corpus) -> None:
    assert by_item(public, "1")["title"] == "Misérables, Les (1995)"
    assert json.loads(public.users["attributes"][0]) == {"gender": "F", "age": "1", "occupation": "10"}


@pytest.mark.parametrize("public", ["recbole"], indirect=True)
def test_typed_headers(public: Corpus) -> None:
    assert by_item(public, "1")["title"] == 'Toy "Story"'
    assert by_item(public, "1")["categories"] == ["Animation", "Comedy"]
    assert public.users.height == 3


@pytest.mark.parametrize("public", ["goodbooks_10k"], indirect=True)
def test_reading_lists_stand_beside_ratings(public: Corpus) -> None:
    assert public.order_only == ["goodbooks"]
    assert public.events.filter(pl.col("event") == "cart")["item"].to_list() == ["3"]
    assert by_item(public, "2")["lang"] == "zho"


def test_every_spec_is_read_and_tested() -> None:
    names = sorted(path.stem for path in CONFIGS.glob("*.toml"))
    assert names == sorted([*REAL, *PUBLIC])
    for name in names:
        assert read_spec(CONFIGS / f"{name}.toml").source


def test_rest_of_a_line_factor_and_scale_of_ratings_only(tmp_path: Path) -> None:
    rows(tmp_path / "items.txt", "007 red hair dryer, 110 V", "8", '9 "small" comb')
    rows(
        tmp_path / "log.csv",
        "u,i,what,n,t",
        "a,007,play,2,1600000000",
        "a,007,rate,4,1600000100",
        "a,8,rate,9,1600000200",
    )
    spec = f"""
    name = "toy"
    max_reject_share = 0.5
    [[source]]
    kind = "items"
    platform = "p"
    path = "{tmp_path / "items.txt"}"
    delimiter = " "
    header = false
    names = ["id", "words"]
    rest = true
    columns = {{ item = "id", title = "words" }}
    [[source]]
    kind = "events"
    platform = "p"
    path = "{tmp_path / "log.csv"}"
    columns = {{ user = "u", item = "i", event = "what", value = "n", ts = "t" }}
    scale = [1, 5]
    factor = 3600
    time = "unix_s"
    """
    (tmp_path / "SPEC.toml").write_text(spec)
    corpus = import_corpus(tmp_path / "SPEC.toml", tmp_path / "corpus")
    assert corpus.items["title"].to_list() == ["red hair dryer, 110 V", None, '"small" comb']
    assert dict(corpus.events.select("event", "value").iter_rows()) == {"play": 7200.0, "rate": 0.75}
    assert corpus.manifest["rejects"] == {"value outside the scale": 1}
