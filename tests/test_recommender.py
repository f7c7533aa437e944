"""The recommender: transfer helps where it can and not where it cannot; external ids in and out; whole on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.small import corpus, day, events, items

from isthmus.data.corpus import Corpus
from isthmus.data.simulate import WORLD, twin_world, unrelated_world
from isthmus.data.simulate.worlds import World
from isthmus.errors import ArtefactError, DataError, InputError, NotFoundError
from isthmus.evaluate.protocol import judge
from isthmus.recommender import Recommender, System
from isthmus.recommender.readers import vocabulary
from isthmus.split.cohorts import build_task
from isthmus.split.leaks import audit_vocabulary
from isthmus.split.temporal import TEST, Split
from isthmus.testing import check_system
from isthmus.train.fit import FitSettings

PLAN = replace(WORLD, persons=260, items=120)
QUICK = FitSettings(methods=("popularity", "knn", "tfidf", "ease"), budget=2.0, seed=1)


def fitted(world: World, **chosen: object) -> tuple[Split, Recommender]:
    split = Split.make(Corpus.from_tables(world.tables, name="world"), valid_share=0.15, test_share=0.15)
    cold = split.few_shot("target", keep=0, share=0.5, seed=2)
    return cold, Recommender.fit(cold, targets=["target"], settings=replace(QUICK, **chosen))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def twin() -> tuple[Split, Recommender]:
    return fitted(twin_world(1, PLAN))


def gain(split: Split, recommender: Recommender) -> tuple[float, float]:
    """Return N@10 of persons who are cold in the target: by the blend, and by popularity."""
    task = build_task(split, TEST, "target")
    cold = task.cohorts["cold, overlap"]
    assert cold.sum() > 30
    found = [judge(recommender.system("target", name), task) for name in (None, "popularity")]
    blend, popular = (float(np.nanmean(outcome.metrics["ndcg@10"][cold])) for outcome in found)
    return blend, popular


def test_in_the_twin_world_the_source_helps_cold_persons(twin: tuple[Split, Recommender]) -> None:
    blend, popular = gain(*twin)
    assert 2.5 * popular < blend < 0.9


def test_in_the_unrelated_world_the_source_does_not_help() -> None:
    blend, popular = gain(*fitted(unrelated_world(1, PLAN)))
    assert 0.5 * popular < blend < 1.7 * popular + 0.02


def test_the_blend_and_every_part_can_be_judged(twin: tuple[Split, Recommender]) -> None:
    split, recommender = twin
    task = build_task(split, TEST, "target", most=20)
    for name in (None, *QUICK.methods):
        system = recommender.system("target", name)
        assert isinstance(system, System)
        assert system.name == (name or "blend")
        check_system(system, task)


def users(*keys: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(list(keys), schema={"platform": pl.String, "user": pl.String}, orient="row")


def test_everybody_gets_a_full_list(twin: tuple[Split, Recommender]) -> None:
    split, recommender = twin
    lists = recommender.recommend(k=7)
    assert lists.columns == ["platform", "user", "domain", "item", "rank", "score", "item_platform"]
    accounts = split.corpus.identities.select("platform", "user")
    assert set(accounts["platform"]) == {"north", "south"}, "also those known from the other platform"
    assert lists.select("platform", "user").unique().sort("platform", "user").equals(accounts.sort("platform", "user"))
    by_account = lists.group_by("platform", "user").agg(pl.col("rank"), pl.col("score"), pl.col("item").n_unique())
    assert by_account["rank"].to_list() == [list(range(1, 8))] * accounts.height
    assert by_account["item"].to_list() == [7] * accounts.height
    assert all(scores == sorted(scores, reverse=True) for scores in by_account["score"].to_list())
    targets = split.corpus.items.filter(domain="target")["item"]
    assert lists["item"].is_in(targets.implode()).all()


def test_the_accounts_of_one_person_get_the_same_list(twin: tuple[Split, Recommender]) -> None:
    split, recommender = twin
    pair = split.corpus.identities.filter(pl.len().over("person") == 2).sort("person").head(2)
    lists = recommender.recommend(pair, k=5)
    one, other = lists.partition_by("platform", maintain_order=True)
    assert one["item"].to_list() == other["item"].to_list()


def test_seen_items_are_left_out_unless_asked_for(twin: tuple[Split, Recommender]) -> None:
    split, recommender = twin
    size = split.corpus.items.filter(domain="target").height
    known = split.known(TEST).unique(["person", "item"])
    names = split.corpus.items.with_row_index("index").select("index", name="item")
    accounts = split.corpus.identities.join(
        pl.DataFrame({"person": split.corpus.persons}).with_row_index("index"), on="person"
    ).select("platform", "user", person="index")
    seen = known.join(names, left_on="item", right_on="index").join(accounts, on="person")
    seen = seen.select("platform", "user", item="name")
    left = recommender.recommend(k=size)
    assert left.join(seen, on=["platform", "user", "item"], how="semi").is_empty()
    every = recommender.recommend(k=size + 100, exclude_seen=False)
    assert every.height == accounts.height * size
    in_target = seen.join(split.corpus.items.filter(domain="target"), on="item", how="semi")
    assert left.height == every.height - in_target.unique().height
    assert in_target.height > 50


def test_somebody_unknown_gets_the_list_of_a_person_without_history(twin: tuple[Split, Recommender]) -> None:
    _, recommender = twin
    lists = recommender.recommend(users(("north", "nobody"), ("mars", "谁"), ("north", "nobody")), k=4)
    assert lists["user"].to_list() == ["谁"] * 4 + ["nobody"] * 4
    first, second = (part["item"].to_list() for part in lists.partition_by("user"))
    assert first == second
    assert recommender.recommend(users(), k=4).is_empty()


def theme(world: World, platform: str, n: int, number: int) -> list[str]:
    name = world.themes["theme"].unique().sort()[number]
    return world.themes.filter(platform=platform, theme=name)["item"].to_list()[:n]


def test_a_new_person_with_a_few_events_gets_fitting_items(twin: tuple[Split, Recommender]) -> None:
    recommender = twin[1]
    world = twin_world(1, PLAN)
    shares = []
    for number in range(4):
        log = pl.DataFrame({"platform": "north", "user": "new", "item": theme(world, "north", 3, number)})
        lists = recommender.recommend(users(("north", "new")), events=log, k=10)
        shares.append(lists["item"].is_in(theme(world, "south", 999, number)).mean())
    assert np.mean(shares) > 0.5, "one theme of eight"
    before = recommender.recommend(users(("north", "new")), k=10)
    assert before["item"].to_list() != lists["item"].to_list()


def test_new_events_of_somebody_known_count_and_are_left_out(twin: tuple[Split, Recommender]) -> None:
    split, recommender = twin
    who = users(split.corpus.identities.row(0)[:2])
    first = recommender.recommend(who, k=3)
    taken = first["item"][0]
    log = pl.DataFrame({"platform": ["south"], "item": [taken], "event": ["purchase"]}).with_columns(who["user"])
    log = log.with_columns(platform=pl.lit("south"), user=pl.lit(_account(split, who, "south")))
    later = recommender.recommend(who, k=3, events=log)
    assert taken not in later["item"].to_list()
    again = recommender.recommend(who, k=3)
    assert again.equals(first), "nothing was learned or kept"
    impression = recommender.recommend(who, k=3, events=log.with_columns(event=pl.lit("impression")))
    assert impression.equals(first), "an impression says nothing about taste"


def _account(split: Split, who: pl.DataFrame, platform: str) -> str:
    person = split.corpus.identities.join(who, on=["platform", "user"], how="semi")["person"][0]
    return str(split.corpus.identities.filter(person=person, platform=platform)["user"][0])


def test_wrong_events_and_users_are_named(twin: tuple[Split, Recommender]) -> None:
    recommender = twin[1]
    log = pl.DataFrame({"platform": ["north"], "user": ["x"], "item": ["none"]})
    with pytest.raises(NotFoundError, match="north:none"):
        recommender.recommend(events=log)
    with pytest.raises(DataError, match="lacks column"):
        recommender.recommend(events=log.drop("item"))
    known = log.with_columns(item=recommender.items.filter(platform="north")["item"].head(1), event=pl.lit("sing"))
    with pytest.raises(DataError, match="event word"):
        recommender.recommend(events=known)
    with pytest.raises(DataError, match="lacks column"):
        recommender.recommend(pl.DataFrame({"user": ["x"]}))
    with pytest.raises(InputError, match="k = 0"):
        recommender.recommend(k=0)
    with pytest.raises(NotFoundError, match="did you mean 'target'"):
        recommender.recommend(target="taget")
    with pytest.raises(NotFoundError, match="no item 'north:zz'"):
        recommender.similar("north", "zz")


def test_a_new_item_is_listed_for_those_who_like_its_text(twin: tuple[Split, Recommender]) -> None:
    split, recommender = twin
    model = recommender.items.filter(domain="target")
    copy = model.head(1).with_columns(item=pl.lit("新片-001"))
    longer = recommender.add_items(copy)
    assert longer.items.height == recommender.items.height + 1
    everybody = split.corpus.identities.select("platform", "user")
    old = longer.recommend(everybody, k=30, exclude_seen=False).filter(item=copy.row(0)[1])
    assert old.height > 0
    with_old = recommender.recommend(everybody, k=30, exclude_seen=False)
    fans = with_old.filter(item=model["item"][0]).select("platform", "user")
    assert fans.height < everybody.height
    share = old.join(fans, on=["platform", "user"], how="semi").height / old.height
    assert share > 1.3 * fans.height / everybody.height
    with pytest.raises(DataError, match="known already"):
        longer.add_items(copy)
    with pytest.raises(NotFoundError, match="no domain 'taget'"):
        recommender.add_items(copy.with_columns(domain=pl.lit("taget")))
    silent = recommender.add_items(copy.with_columns(title=None, text=None, categories=None, attributes=None))
    assert silent.recommend(k=5)["score"].is_finite().all()
    assert (silent.similar(*copy.row(0)[:2])["score"] == 0).all(), "popular items are not what it is like"


def test_new_items_may_be_in_new_histories(twin: tuple[Split, Recommender]) -> None:
    recommender = twin[1]
    copy = recommender.items.filter(domain="source").head(1).with_columns(item=pl.lit("fresh"))
    log = pl.DataFrame({"platform": ["north"], "user": ["n"], "item": ["fresh"]})
    lists = recommender.add_items(copy).recommend(users(("north", "n")), events=log, k=3)
    assert lists.height == 3


def test_the_vocabulary_has_no_word_of_test_items() -> None:
    log = [("shop", f"u{n % 5}", f"i{n // 2}", float(n)) for n in range(20)]
    titles = {f"i{n}": f"common{n % 2} 共同 {'zanzibar' if n > 7 else 'usual'}" for n in range(10)}
    split = Split.make(corpus(log, titles=titles), cuts=(day(10), day(16)))
    assert audit_vocabulary(["zanzibar"], split).count == 1
    assert audit_vocabulary(vocabulary(split).vocabulary, split).level == "ok"
    assert "usual" in vocabulary(split).vocabulary


def test_similar_items_share_the_theme(twin: tuple[Split, Recommender]) -> None:
    recommender = twin[1]
    world = twin_world(1, PLAN)
    hits = []
    for number in range(4):
        for platform in ("north", "south"):
            asked = theme(world, platform, 1, number)[0]
            found = recommender.similar(platform, asked, k=10)
            assert found.columns == ["domain", "platform", "item", "title", "score"]
            assert asked not in found["item"].to_list()
            hits.append(found["item"].is_in(theme(world, "south", 999, number)).mean())
    assert np.mean(hits) > 0.5


def test_saved_and_opened_gives_equal_lists(twin: tuple[Split, Recommender], tmp_path: Path) -> None:
    recommender = twin[1]
    recommender.save(tmp_path / "model")
    opened = Recommender.open(tmp_path / "model")
    assert opened.recommend(k=5).equals(recommender.recommend(k=5))
    assert opened.card == json.loads(json.dumps(recommender.card))
    copy = recommender.items.filter(domain="target").head(1).with_columns(item=pl.lit("new"))
    assert opened.add_items(copy).recommend(k=5).equals(recommender.add_items(copy).recommend(k=5))
    longer = recommender.add_items(copy).save(tmp_path / "longer")
    assert Recommender.open(tmp_path / "longer").recommend(k=5).equals(longer.recommend(k=5))
    assert not [name for name in tmp_path.rglob("*") if name.suffix in (".pkl", ".npy", ".npz")]


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def other_format(path: Path) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))


def without_targets(path: Path) -> None:
    content = json.loads(path.read_text())
    del content["targets"]
    path.write_text(json.dumps(content))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("pattern", "damage", "message"),
    [
        ("*.safetensors", flip, "was changed"),
        ("*.parquet", flip, "was changed"),
        ("tfidf.json", flip, "was changed"),
        ("*.safetensors", Path.unlink, "is missing"),
        ("*.parquet", Path.unlink, "is missing"),
        ("model.json", Path.unlink, "is not a model"),
        ("model.json", other_format, "model format 99"),
        ("model.json", without_targets, "was changed"),
        ("model.json", cut, "damaged"),
    ],
)
def test_a_damaged_model_is_refused(
    twin: tuple[Split, Recommender], tmp_path: Path, pattern: str, damage: Callable[[Path], None], message: str
) -> None:
    twin[1].save(tmp_path / "model")
    names = sorted(path.name for path in (tmp_path / "model").glob(pattern))
    assert names
    for name in names:
        twin[1].save(tmp_path / "model")
        damage(tmp_path / "model" / name)
        with pytest.raises(ArtefactError, match=message):
            Recommender.open(tmp_path / "model")


def test_a_folder_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ArtefactError, match="is not a model"):
        Recommender.open(tmp_path / "nothing")


ODD = [
    (platform, user, item, n + day_shift)
    for n, user in enumerate(["007", "7", "张三", "a b"])
    for day_shift, (platform, item) in enumerate(
        [("shop", "0012"), ("shop", "12"), ("cinema", "电影/1"), ("shop", "B:7"), ("shop", "书"), ("cinema", f"f{n}")]
    )
]


def test_odd_ids_come_back_as_they_came(tmp_path: Path) -> None:
    log = [*ODD, ("shop", "00", "0012", 2.5), ("radio", "仅电台", "r1", 1.0), ("radio", "b", "r1", 2.0)]
    titles = {"0012": "Tea", "12": "Tea pot", "书": "茶", "B:7": None}
    split = Split.make(corpus(log, titles=titles, more=[("shop", "没人")]), test_share=0.0, valid_share=0.3)
    recommender = Recommender.fit(split, settings=replace(QUICK, budget=0.2))
    assert sorted(recommender.targets) == ["books", "films"]
    recommender.save(tmp_path / "m")
    lists = Recommender.open(tmp_path / "m").recommend(k=50, exclude_seen=False)
    assert set(lists["user"]) == {"007", "7", "张三", "a b", "00", "仅电台", "b"}
    assert set(lists.filter(domain="books")["item"]) == {"0012", "12", "书", "B:7", "没人"}
    assert lists.filter(user="仅电台")["domain"].unique().sort().to_list() == ["books", "films"]
    assert lists.filter(platform="shop", user="007", domain="books").height == 5
    assert recommender.recommend(target="films", k=1)["domain"].unique().to_list() == ["films"]


def test_a_catalogue_of_one_item() -> None:
    log = [("shop", f"u{n}", "only", float(n)) for n in range(6)] + [("cinema", "fan", "f", 2.0)]
    split = Split.make(corpus(log), test_share=0.0, valid_share=0.3)
    recommender = Recommender.fit(split, targets=["books"], settings=replace(QUICK, budget=0.2))
    lists = recommender.recommend(k=10)
    assert lists.select("user", "item").rows() == [("fan", "only")], "the others have seen it"
    assert recommender.recommend(k=10, exclude_seen=False).height == 7
    assert recommender.similar("shop", "only").is_empty()
    assert recommender.similar("cinema", "f")["item"].to_list() == ["only"]


def test_somebody_with_five_thousand_events(twin: tuple[Split, Recommender]) -> None:
    recommender = twin[1]
    target = recommender.items.filter(domain="target")["item"]
    some = target.gather(np.random.default_rng(0).integers(0, 100, 5000))
    log = pl.DataFrame({"item": some}).with_columns(platform=pl.lit("south"), user=pl.lit("busy"))
    lists = recommender.recommend(users(("south", "busy")), events=log, k=100)
    assert lists["item"].is_in(target.slice(100).implode()).all()
    assert lists.height == target.len() - some.n_unique()
    assert lists["score"].is_finite().all()


def test_nothing_to_learn_from_is_said() -> None:
    log = [("shop", "a", "x", 1.0), ("shop", "b", "y", 2.0), ("cinema", "a", "f", 9.0)]
    split = Split.make(corpus(log), cuts=(day(5), day(20)))
    with pytest.raises(InputError, match="no domain has training and validation"):
        Recommender.fit(split, settings=QUICK)
    with pytest.raises(InputError, match="valid has no event in domain 'books'"):
        Recommender.fit(split, targets=["books"], settings=QUICK)
    with pytest.raises(NotFoundError, match="did you mean 'books'"):
        Recommender.fit(split, targets=["book"], settings=QUICK)


def test_persons_without_any_event_are_not_everybody() -> None:
    tables = {
        "events": events([("shop", f"u{n}", f"i{n % 3}", float(n)) for n in range(9)]),
        "items": items([("shop", f"i{n}") for n in range(3)], {}, {}),
        "identities": pl.DataFrame({"platform": ["shop"], "user": ["ghost"], "person": ["ghost"]}),
    }
    split = Split.make(Corpus.from_tables(tables, name="g"), test_share=0.0, valid_share=0.3)
    recommender = Recommender.fit(split, settings=replace(QUICK, methods=("popularity",)))
    assert "ghost" not in recommender.recommend()["user"]
    assert recommender.recommend(users(("shop", "ghost")), k=2).height == 2


@pytest.mark.slow
def test_with_the_language_model_new_items_are_read_too(tmp_path: Path) -> None:
    world = twin_world(3, replace(WORLD, persons=80, items=40))
    split, recommender = fitted(world, methods=("popularity", "knn", "text"))
    recommender.save(tmp_path / "model")
    opened = Recommender.open(tmp_path / "model")
    copy = recommender.items.filter(domain="target").head(1).with_columns(item=pl.lit("new"))
    assert opened.add_items(copy).recommend(k=3).equals(recommender.add_items(copy).recommend(k=3))
    check_system(recommender.system("target", "text"), build_task(split, TEST, "target", most=5))
