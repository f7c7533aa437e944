"""Splits: which event is on which side, by both protocols, on disk and cut short."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small import Event, corpus, day

from isthmus.data.corpus import Corpus
from isthmus.errors import ArtefactError, DataError, InputError, NotFoundError
from isthmus.split.temporal import CONTEXT, TEST, TRAIN, VALID, HeldOut, Split

PLATFORMS = st.sampled_from(["shop", "cinema"])
LOGS = st.lists(
    st.tuples(PLATFORMS, st.sampled_from("abc"), st.sampled_from(["i1", "i2", "i3", "i4"]), st.integers(0, 12)),
    min_size=8,
    max_size=40,
)


def made(log: list[tuple[str, str, str, int]], **chosen: object) -> Split | None:
    """Return the split, or None where the log leaves nothing to learn from."""
    try:
        return Split.make(corpus(log), **chosen)  # type: ignore[arg-type]
    except InputError as error:
        if "learn" in str(error) or "older" in str(error):
            return None
        raise


def parts(split: Split) -> dict[int, pl.DataFrame]:
    return {part: split.events.filter(part=part) for part in (TRAIN, VALID, TEST, CONTEXT)}


@settings(max_examples=80, deadline=None)
@given(LOGS, st.sampled_from([0.1, 0.2, 0.4]), st.sampled_from([0.0, 0.1, 0.3]))
def test_a_time_cut_keeps_times_on_one_side_over_all_platforms(
    log: list[tuple[str, str, str, int]], valid: float, test: float
) -> None:
    split = made(log, valid_share=valid, test_share=test)
    if split is None:
        return
    found = parts(split)
    cuts = {name: datetime.fromisoformat(cut) for name, cut in split.card["cuts"].items()}  # type: ignore[attr-defined]
    assert (found[TRAIN]["ts"] < cuts["valid"]).all()
    assert (found[VALID]["ts"] >= cuts["valid"]).all()
    if test:
        assert (found[VALID]["ts"] < cuts["test"]).all()
        assert (found[TEST]["ts"] >= cuts["test"]).all()
        assert found[TEST].height >= int(test * len(log)), "ties go to the later side"
    else:
        assert found[TEST].is_empty()
    assert found[CONTEXT].is_empty()
    assert split.events.height == len(log)
    assert split.events.drop("part").equals(split.corpus.interactions())
    names = ("train", "valid", "test", "context")
    assert split.card["events"] == {name: found[part].height for part, name in enumerate(names)}


def test_shares_are_met_where_times_differ() -> None:
    split = Split.make(
        corpus([("shop", f"u{n % 7}", f"i{n % 9}", n) for n in range(200)]), valid_share=0.1, test_share=0.2
    )
    assert split.card["events"] == {"train": 140, "valid": 20, "test": 40, "context": 0}


def test_given_cuts_are_used_and_naive_ones_are_utc() -> None:
    log: list[Event] = [("shop", "a", f"i{n}", n) for n in range(10)]
    split = Split.make(corpus(log), cuts=(day(7).replace(tzinfo=None), day(4)))
    assert [part.height for part in parts(split).values()] == [4, 3, 3, 0]
    only_test = Split.make(corpus(log), cuts=(day(5),), valid_share=0.2)
    assert [part.height for part in parts(only_test).values()] == [3, 2, 5, 0]


@settings(max_examples=80, deadline=None)
@given(LOGS, st.booleans())
def test_leave_last_takes_the_last_of_each_person_and_domain(log: list[tuple[str, str, str, int]], test: bool) -> None:
    split = made(log, protocol="leave-last", test_share=0.1 if test else 0.0)
    if split is None:
        return
    domains = split.corpus.items["domain"].gather(split.events["item"])
    rows = defaultdict(list)
    for row, domain in zip(split.events.iter_rows(named=True), domains, strict=True):
        rows[row["person"], domain].append(row["part"])
    for found in rows.values():
        wanted = [VALID, TEST] if test else [VALID]
        kept = wanted[max(0, len(wanted) - (len(found) - 1)) :] if len(found) > 1 else []
        assert found == [TRAIN] * (len(found) - len(kept)) + kept


def test_leave_last_follows_the_log_where_times_are_equal() -> None:
    log: list[Event] = [("shop", "a", item, 5) for item in ("i3", "i1", "i2")]
    split = Split.make(corpus([*log, ("shop", "b", "i1", 1)], order=("shop",)), protocol="leave-last")
    items = split.corpus.items["item"].gather(split.events.sort("part")["item"]).to_list()
    assert items[-1] == "i2"
    assert split.events["part"].to_list() == [TRAIN, VALID, TEST, TRAIN]


def held(*names: str) -> pl.DataFrame:
    return pl.DataFrame(
        {"platform": ["shop"] * len(names), "user": list(names)}, schema={"platform": pl.String, "user": pl.String}
    )


def test_held_out_persons_are_judged_by_their_last_event_anywhere() -> None:
    log: list[Event] = [
        (p, u, i, n) for u in "abc" for p, i, n in [("shop", "x", 1), ("shop", "y", 2), ("cinema", "f", 3)]
    ]
    split = Split.make(corpus(log), protocol="leave-last", held_out=HeldOut(held("b"), held("c")))
    by_person = split.events.group_by("person", maintain_order=True).agg("part")["part"].to_list()
    assert by_person == [[TRAIN] * 3, [CONTEXT, CONTEXT, VALID], [CONTEXT, CONTEXT, TEST]]
    assert split.known(TEST).height == 8
    assert len(str(split.card["held out"])) == 12


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        ({"valid_share": 0.0}, InputError, "impossible"),
        ({"valid_share": 0.6, "test_share": 0.5}, InputError, "impossible"),
        ({"test_share": -0.1}, InputError, "impossible"),
        ({"protocol": "random"}, InputError, "no protocol 'random'"),
        ({"cuts": (day(1), day(2), day(3))}, InputError, "3 cuts"),
        ({"cuts": (day(0), day(2))}, InputError, "no event is older"),
        ({"cuts": (day(-5),)}, InputError, "nothing is left to learn from"),
        ({"protocol": "leave-last", "cuts": (day(1),)}, InputError, "cuts need the protocol time"),
        ({"held_out": HeldOut(held("a"), held())}, InputError, "need the protocol leave-last"),
        ({"protocol": "leave-last", "held_out": HeldOut(held("nobody"), held())}, DataError, "first shop:nobody"),
        ({"protocol": "leave-last", "held_out": HeldOut(held("a"), held("a"))}, DataError, "for valid and for test"),
        ({"protocol": "leave-last", "held_out": HeldOut(held("a"), held("b"))}, InputError, "nothing is left"),
    ],
)
def test_impossible_wishes_are_refused(chosen: dict[str, object], error: type[Exception], message: str) -> None:
    log: list[Event] = [("shop", u, f"i{n}", n) for n in range(5) for u in "ab"]
    with pytest.raises(error, match=message):
        Split.make(corpus(log), **chosen)  # type: ignore[arg-type]


def test_an_order_without_dates_cannot_be_cut_by_time() -> None:
    log: list[Event] = [("shop", "a", f"i{n}", n) for n in range(5)]
    with pytest.raises(InputError, match=r"shop have an order and no dates.*leave-last"):
        Split.make(corpus(log, order=("shop",)))


def test_events_without_taste_are_no_part() -> None:
    tables = {
        "events": pl.concat([corpus([("shop", "a", f"i{n}", n)]).events.with_columns(event=pl.lit(word)) for n, word in
                             enumerate(["view", "ad_click", "impression", "purchase"])]),
        "items": corpus([("shop", "a", f"i{n}", n) for n in range(4)]).items,
    }  # fmt: skip
    split = Split.make(Corpus.from_tables(tables, name="ads"), protocol="leave-last", test_share=0.0)
    assert split.events["weight"].to_list() == pytest.approx([0.3, 1.0])
    tables["events"] = tables["events"].filter(pl.col("event") == "impression")
    with pytest.raises(DataError, match="no event says anything about taste"):
        Split.make(Corpus.from_tables(tables, name="ads"))


LONG: list[Event] = [
    (p, f"u{u}", f"{p[0]}{(n * 7 + u) % 11}", n + u / 100)
    for u in range(40)
    for n in range(8)
    for p in ("shop", "cinema")
]


@pytest.mark.parametrize("protocol", ["time", "leave-last"])
@pytest.mark.parametrize("keep", [0, 2])
def test_few_shot_persons_keep_their_newest_events_only(protocol: str, keep: int) -> None:
    split = Split.make(corpus(LONG), protocol=protocol, valid_share=0.2, test_share=0.2)  # type: ignore[arg-type]
    few = split.few_shot("films", keep=keep, share=0.5, seed=3)
    inside = few.corpus.items["domain"].gather(few.events["item"]) == "films"
    learned = few.events.filter(inside & (few.events["part"] == TRAIN)).group_by("person").len()
    counts = dict(learned.iter_rows())
    before = split.events.filter(
        (split.corpus.items["domain"].gather(split.events["item"]) == "films") & (split.events["part"] == TRAIN)
    )
    full = dict(before.group_by("person").len().iter_rows())
    chosen = {person for person in full if counts.get(person, 0) != full[person]}
    assert 8 < len(chosen) < 32
    assert all(counts.get(person, 0) == keep for person in chosen)
    newest = (
        before.filter(pl.col("person").is_in(chosen))
        .group_by("person")
        .tail(keep)
        .drop_nulls("item")
        .sort("person", "ts")
    )
    kept = few.events.filter(inside & (few.events["part"] == TRAIN)).filter(pl.col("person").is_in(chosen))
    assert kept.select("person", "item", "ts").equals(newest.select("person", "item", "ts"))
    for person in chosen:
        asked = few.events.filter(inside & (few.events["person"] == person))["part"].unique().to_list()
        assert len({VALID, TEST} & set(asked)) <= 1, "asked in one part only"
    both = {
        part for part in (VALID, TEST) if few.events.filter(inside & pl.col("person").is_in(chosen), part=part).height
    }
    assert both == {VALID, TEST}
    others = split.events.filter(~pl.col("person").is_in(chosen))
    assert few.events.filter(~pl.col("person").is_in(chosen)).equals(others)
    assert (
        few.events.filter(~inside).height
        == split.events.filter(split.corpus.items["domain"].gather(split.events["item"]) != "films").height
    )
    assert few.card["few-shot"] == {"domain": "films", "keep": keep, "share": 0.5, "seed": 3}
    assert few.card["events"]["train"] == few.events.filter(part=TRAIN).height  # type: ignore[index]
    assert few.events.equals(split.few_shot("films", keep=keep, share=0.5, seed=3).events)
    assert not few.events.equals(split.few_shot("films", keep=keep, share=0.5, seed=4).events)


def test_few_shot_wishes_are_checked() -> None:
    split = Split.make(corpus(LONG))
    with pytest.raises(NotFoundError, match="did you mean 'films'"):
        split.few_shot("film", keep=1, share=0.5, seed=0)
    for keep, share in ((-1, 0.5), (1, 0.0), (1, 1.5)):
        with pytest.raises(InputError, match="impossible"):
            split.few_shot("films", keep=keep, share=share, seed=0)


def of_films(split: Split) -> pl.Series:
    return split.corpus.items["domain"].gather(split.events["item"]) == "films"


def test_only_one_domain_leaves_its_events_as_they_are() -> None:
    split = Split.make(corpus(LONG))
    alone = split.only("films")
    assert alone.events.equals(split.events.filter(of_films(split)))
    assert alone.card["only"] == "films"
    assert sum(alone.card["events"].values()) == alone.events.height  # type: ignore[attr-defined]
    with pytest.raises(NotFoundError, match="did you mean 'films'"):
        split.only("film")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 50), st.floats(0, 1), st.floats(0, 1))
def test_thinning_turns_what_others_did_into_context(seed: int, one: float, other: float) -> None:
    split = Split.make(corpus(LONG), valid_share=0.2, test_share=0.2)
    teachers = []
    for share in sorted((one, other)):
        thin = split.thinned("films", share=share, seed=seed)
        inside = of_films(split)
        assert thin.events.drop("part").equals(split.events.drop("part")), "no event comes or goes"
        changed = thin.events["part"] != split.events["part"]
        assert inside.filter(changed).all()
        assert (thin.events["part"].filter(changed) == CONTEXT).all()
        assert not (split.events["part"].filter(changed) == TEST).any(), "the test part stays"
        mine = thin.events.filter(inside & (pl.col("part") < TEST))["person"].unique()
        assert not split.events.filter(changed)["person"].is_in(mine.implode()).any(), "all or nothing of a person"
        teachers.append(set(mine.to_list()))
    assert teachers[0] <= teachers[1], "shares are nested"


def test_the_ends_of_thinning_are_nobody_and_everybody() -> None:
    split = Split.make(corpus(LONG), valid_share=0.2, test_share=0.2)
    assert split.thinned("films", share=1, seed=0).events.equals(split.events)
    nobody = split.thinned("films", share=0, seed=0)
    assert not nobody.events.filter(of_films(split) & (pl.col("part") < TEST)).height
    assert nobody.card["thinned"] == {"domain": "films", "share": 0, "seed": 0}
    shown = nobody.known(TEST).filter(part=CONTEXT)
    assert shown.height == split.events.filter(of_films(split) & (pl.col("part") < TEST)).height, "shown as history"
    some = {seed: split.thinned("films", share=0.5, seed=seed).events for seed in (0, 1)}
    assert not some[0].equals(some[1])
    for share in (-0.1, 1.1):
        with pytest.raises(InputError, match="impossible"):
            split.thinned("films", share=share, seed=0)


def test_known_is_what_came_before_and_the_context() -> None:
    split = Split.make(corpus(LONG), valid_share=0.2, test_share=0.2)
    assert split.known(VALID).equals(split.events.filter(part=TRAIN))
    assert split.known(TEST).equals(split.events.filter(pl.col("part") != TEST))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    stored = corpus(LONG).save(tmp_path / "语料")
    Split.make(stored).save(tmp_path / "splits" / "one")
    return tmp_path


def test_a_split_survives_the_disk_and_a_move_of_both(saved: Path) -> None:
    opened = Split.open(saved / "splits" / "one")
    assert opened.events.equals(Split.make(corpus(LONG)).events)
    assert opened.corpus.fingerprint == corpus(LONG).fingerprint
    moved = saved.rename(saved.with_name("moved"))
    assert Split.open(moved / "splits" / "one").card == opened.card


def test_a_split_needs_a_stored_corpus(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="save the corpus first"):
        Split.make(corpus(LONG)).save(tmp_path / "split")


def rewrite(path: Path, change: Callable[[dict[str, object]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("split.json", lambda card: card.update(format=9), "split format 9"),
        ("split.json", lambda card: card.pop("card"), "damaged"),
        ("split.json", lambda card: card.pop("corpus_path"), "damaged"),
        ("split.json", lambda card: card.update(corpus_path="../nowhere"), "is not a corpus"),
        ("split.json", lambda card: card["card"].pop("fingerprint"), "changed after this split"),
        ("split.json", None, "is not a split"),
        ("events.parquet", None, "damaged"),
    ],
)
def test_a_damaged_split_is_refused(
    saved: Path, name: str, change: Callable[[dict[str, object]], object] | None, message: str
) -> None:
    path = saved / "splits" / "one" / name
    path.unlink() if change is None else rewrite(path, change)
    with pytest.raises(ArtefactError, match=message):
        Split.open(saved / "splits" / "one")


def test_broken_or_foreign_tables_are_refused(saved: Path) -> None:
    path = saved / "splits" / "one" / "events.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(ArtefactError, match="damaged"):
        Split.open(path.parent)
    pl.DataFrame({"person": [1]}).write_parquet(path)
    with pytest.raises(ArtefactError, match="damaged"):
        Split.open(path.parent)


def test_a_corpus_changed_since_is_refused(saved: Path) -> None:
    corpus([*LONG, ("shop", "new", "i1", 3)]).save(saved / "语料")
    with pytest.raises(ArtefactError, match="changed after this split"):
        Split.open(saved / "splits" / "one")


def test_cuts_are_moments_not_days() -> None:
    log: list[Event] = [("shop", "a", f"i{n}", 1 + n / 24) for n in range(6)]
    split = Split.make(corpus(log), cuts=(day(1) + timedelta(hours=2), day(1) + timedelta(hours=4)))
    assert [part.height for part in parts(split).values()] == [2, 2, 2, 0]
