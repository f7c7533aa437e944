"""The leak audit: every planted leak is found, and a clean split has none."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import polars as pl
import pytest
from tests.small import Event, corpus, day

from isthmus.data.corpus import Corpus
from isthmus.data.importer import import_corpus
from isthmus.encode.tfidf import TfidfEncoder, TfidfSettings
from isthmus.errors import LeakError
from isthmus.split.leaks import Finding, audit, audit_vocabulary, require_clean
from isthmus.split.temporal import TEST, TRAIN, VALID, Split

CUTS = (day(100), day(200))
#: Two persons, no id that looks like one, times apart, nothing repeated.
CLEAN: list[Event] = [
    ("shop", "ann", "aa", 1), ("shop", "ann", "bb", 2), ("shop", "bob", "bb", 3), ("shop", "bob", "cc", 4),
    ("cinema", "ann", "ff", 5), ("cinema", "bob", "gg", 6),
    ("shop", "ann", "cc", 101), ("shop", "bob", "aa", 102),
    ("shop", "ann", "dd", 201), ("shop", "bob", "dd", 202), ("cinema", "bob", "ff", 203),
]  # fmt: skip


def timed(log: list[Event], cuts: tuple[datetime, ...] = CUTS, **more: object) -> Split:
    return Split.make(corpus(log, **more), cuts=cuts)  # type: ignore[arg-type]


def found(split: Split, check: str) -> Finding:
    findings = {finding.check: finding for finding in audit(split)}
    assert len(findings) == len(audit(split)) == 9
    return findings[check]


def moved(split: Split, old: int, new: int, count: int = 1) -> Split:
    """Return the split with the newest events of one part in another part: a leak by hand."""
    part = pl.col("part")
    newest = (part == old) & (pl.col("ts").rank("ordinal", descending=True).over("part") <= count)
    events = split.events.with_columns(part=pl.when(newest).then(pl.lit(new, pl.UInt8)).otherwise(part))
    return Split(split.corpus, events, split.card)


def test_a_clean_split_has_no_finding() -> None:
    findings = audit(timed(CLEAN))
    assert [(finding.level, finding.count) for finding in findings] == [("ok", 0)] * 9
    require_clean(findings)


@pytest.mark.parametrize(("old", "new", "count"), [(TEST, TRAIN, 2), (VALID, TRAIN, 1), (TEST, VALID, 1)])
def test_events_after_the_cut_are_refused_on_whatever_platform(old: int, new: int, count: int) -> None:
    finding = found(moved(timed(CLEAN), old, new, count), "later events")
    assert (finding.level, finding.count) == ("refuse", count)
    assert ("cinema" in finding.message) == (old == TEST)
    with pytest.raises(LeakError, match="later events") as caught:
        require_clean([finding])
    assert caught.value.exit_code == 2


def test_an_event_at_the_very_cut_belongs_to_the_later_side() -> None:
    for old, new, when in ((TEST, VALID, 200), (VALID, TRAIN, 100)):
        early = [row for row in CLEAN if row[3] < when]
        split = timed([*early, ("shop", "ann", "ee", when)])
        assert found(moved(split, old, new), "later events").count == 1


def test_leave_last_flags_the_source_events_that_come_after_the_target() -> None:
    log: list[Event] = [("shop", "ann", x, n) for n, x in enumerate("abcd")]
    log += [("cinema", "ann", x, n) for x, n in [("p", 1.5), ("q", 3.5), ("r", 5.5), ("s", 7.5)]]
    finding = found(Split.make(corpus(log), protocol="leave-last"), "later events")
    # Test: d (day 3) and s (day 7.5). Known and later than day 3: q and, of valid, r.
    assert (finding.level, finding.count) == ("flag", 2)
    log = [("shop", "ann", x, n) for n, x in enumerate("abcd")] + [("cinema", "ann", x, 3) for x in "pq"]
    split = Split.make(corpus(log), protocol="leave-last")
    assert found(split, "later events").count == 0, "at the same time is not later"


def test_orders_of_different_platforms_are_not_compared() -> None:
    log: list[Event] = [("shop", "ann", x, n) for n, x in enumerate("abcd")]
    log += [("cinema", "ann", x, n + 50) for n, x in enumerate("pqrs")]
    split = Split.make(corpus(log, order=("shop", "cinema")), protocol="leave-last")
    assert found(split, "later events").count == 0
    assert found(Split.make(corpus(log), protocol="leave-last"), "later events").count == 3


def test_targets_that_were_met_before_are_counted() -> None:
    again: list[Event] = [*CLEAN, ("shop", "ann", "aa", 205), ("shop", "ann", "aa", 206), ("cinema", "ann", "gg", 207)]
    finding = found(timed(again), "repeats across the cut")
    assert (finding.level, finding.count) == ("flag", 1)


IDS: list[Event] = [(p, u, {"dd": "B00012", "ff": "书-7788"}.get(i, i), d) for p, u, i, d in CLEAN]


@pytest.mark.parametrize(
    "title",
    ["like B00012", "See (B00012).", "https://shop.example/dp/B00012?ref=1", "又一本:B00012，好看", "x 书-7788!"],
)
def test_a_text_that_names_targets_is_refused(title: str) -> None:
    finding = found(timed(IDS, titles={"bb": title}), "item texts")
    count = 1 if "7788" in title else 2
    assert (finding.level, finding.count) == ("refuse", count)


def test_a_name_outside_the_history_or_rare_is_flagged_only() -> None:
    assert found(timed(IDS, titles={"B00012": "B00012 by itself"}), "item texts").level == "ok"
    unrelated = found(timed(IDS, titles={"zz": "B00012"}, more=[("shop", "zz")]), "item texts")
    assert (unrelated.level, unrelated.count) == ("flag", 0)
    crowd: list[Event] = [("shop", f"u{n}", f"t{n}", 300 + n) for n in range(60)]
    rare = found(timed([*IDS, *crowd], titles={"bb": "B00012"}), "item texts")
    assert (rare.level, rare.count) == ("flag", 2)


def test_short_or_wordlike_ids_are_no_names() -> None:
    plain: list[Event] = [(p, u, {"dd": "1984", "ff": "hamlet"}.get(i, i), d) for p, u, i, d in CLEAN]
    assert found(timed(plain, titles={"bb": "1984 and hamlet"}), "item texts").level == "ok"


def test_names_in_attributes_are_flagged() -> None:
    split = timed(IDS, attributes={"bb": '{"also_bought": ["B00012", "zz"]}'})
    assert (found(split, "item attributes").level, found(split, "item attributes").count) == ("flag", 2)
    assert found(split, "item texts").level == "ok"


@pytest.mark.parametrize("said", ['{"liked": "三体全集典藏版"}', '{"next": ["B00012"]}'])
def test_a_profile_that_names_the_persons_targets_is_refused(said: str) -> None:
    split = timed(IDS, titles={"B00012": "三体全集典藏版"}, users={"ann": said})
    finding = found(split, "user attributes")
    assert (finding.level, finding.count) == ("refuse", 1)
    assert found(timed(IDS, users={"ann": '{"city": "南京"}'}), "user attributes").level == "ok"


def block(users: int, when: float) -> list[Event]:
    return [("shop", f"u{u}", f"i{n}", when + n + u / 100) for u in range(users) for n in range(4)]


def test_a_core_that_only_holds_with_test_events_is_flagged_with_its_k() -> None:
    core = block(4, 1)
    late: list[Event] = [(p, u, i, 200 + d) if i == "i3" and u in ("u0", "u1") else (p, u, i, d) for p, u, i, d in core]
    late.append(("radio", "u9", "x", 101))
    finding = found(timed(late), "k-core")
    assert (finding.level, finding.count) == ("flag", 1)
    assert "books (k = 4)" in finding.message
    assert found(timed([*late, ("shop", "u0", "lonely", 7)]), "k-core").level == "ok"
    elsewhere: list[Event] = [*core, ("radio", "u9", "x", 101), ("radio", "u9", "y", 201)]
    assert found(timed(elsewhere), "k-core").level == "ok", "four events each without test too"
    pairs: list[Event] = [
        ("shop", u, i, 210 if u + i == "u1i1" else n) for n, u in enumerate(("u0", "u1")) for i in ("i0", "i1")
    ]
    assert found(timed([*pairs, ("radio", "u9", "x", 101)]), "k-core").level == "ok", "two is no core"


def test_ties_are_counted_and_torn_ones_apart() -> None:
    log: list[Event] = [*CLEAN, ("cinema", "ann", "gg", 1), ("shop", "bob", "ff-new", 3)]
    split = timed(log)
    assert (found(split, "tied timestamps").level, found(split, "tied timestamps").count) == ("flag", 4)
    assert found(split, "ties across the cut").level == "ok"
    last = [("shop", "ann", x, float(min(n, 3))) for n, x in enumerate("abcde")]
    torn = found(Split.make(corpus(last), protocol="leave-last"), "ties across the cut")
    assert (torn.level, torn.count) == ("flag", 2)


def test_items_that_only_test_put_into_the_catalogue_are_flagged() -> None:
    split = timed(CLEAN, titles={"dd": None, "aa": None, "ff": None})
    assert (found(split, "catalogue").level, found(split, "catalogue").count) == ("flag", 1)
    assert found(timed(CLEAN, titles={"dd": "  "}), "catalogue").count == 1


def test_a_vocabulary_learned_from_test_items_is_refused() -> None:
    titles = {
        "aa": "green tea",
        "bb": "绿茶 tea",
        "cc": "green",
        "dd": "Zanzibar tea 深度学习",
        "ff": "film",
        "gg": "noir",
    }
    split = timed(CLEAN, titles=titles)
    settings = TfidfSettings(min_df=1)
    known = TfidfEncoder.fit([titles[name] for name in ("aa", "bb", "cc", "ff", "gg")], settings)
    every = TfidfEncoder.fit(titles.values(), settings)
    assert audit_vocabulary(known.vocabulary, split).level == "ok"
    finding = audit_vocabulary(every.vocabulary, split)
    assert finding.level == "refuse"
    assert finding.count > 5
    assert audit_vocabulary(["zanzibar", "深度", "tea", "never said"], split).count == 2
    assert audit_vocabulary([], split).level == "ok"


def test_without_a_test_part_valid_is_audited() -> None:
    split = Split.make(corpus([*CLEAN, ("shop", "ann", "aa", 204)]), test_share=0.0, valid_share=0.3)
    assert found(split, "repeats across the cut").count == 1
    assert found(moved(split, VALID, TRAIN), "later events").level == "refuse"


def test_findings_do_not_depend_on_other_peoples_histories() -> None:
    """A text that bob met names ann's target: ann's history does not give it away."""
    log = [row for row in IDS if row[2] != "B00012" or row[1] == "ann"]
    split = timed(log, titles={"gg": "B00012"})
    assert (found(split, "item texts").level, found(split, "item texts").count) == ("flag", 0)


def test_the_audit_changes_nothing() -> None:
    split = timed(CLEAN)
    before = split.events.clone(), dict(split.card)
    audit(split)
    assert split.events.equals(before[0])
    assert split.card == before[1]
    assert isinstance(split.corpus, Corpus)


@pytest.mark.real
def test_the_five_core_of_published_sets_is_seen(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These files were cut to five events a person and item before anybody split them."""
    if not (real_data / "amazon2014_beauty_sports_toys").is_dir():
        pytest.skip("no amazon2014_beauty_sports_toys in the real data")
    monkeypatch.setenv("ISTHMUS_DATA", str(real_data.resolve()))
    spec = Path(__file__).parents[1] / "configs" / "beauty_sports_toys.toml"
    split = Split.make(import_corpus(spec, tmp_path / "corpus"), protocol="leave-last")
    finding = found(split, "k-core")
    assert (finding.level, finding.count) == ("flag", 3)
    assert finding.message.count("k = 5") == 3
    assert found(split, "later events").level == "ok", "three orders without dates cannot be compared"
