"""Identity: persons are the connected components of accounts, whatever the order of the links."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.data.identity import Links, hashed, resolve
from isthmus.errors import DataError

SECRET = b"a secret of sixteen"


def accounts(*pairs: tuple[str, str]) -> pl.DataFrame:
    return pl.DataFrame(list(pairs), schema={"platform": pl.String, "user": pl.String}, orient="row")


def persons(table: pl.DataFrame) -> dict[tuple[str, str], str]:
    return {(platform, user): person for platform, user, person in table.rows()}


def test_no_overlap_gives_each_account_a_person() -> None:
    table, report = resolve(accounts(("b", "1"), ("a", "1")), Links())
    assert table.rows() == [("a", "1", "a:1"), ("b", "1", "b:1")]
    assert report["linked"] == 0


def test_no_accounts() -> None:
    table, report = resolve(accounts(), Links(same_ids=(("a", "b"),)))
    assert table.is_empty()
    assert report["persons"] == 0


def test_all_kinds_of_links_close_transitively() -> None:
    links = Links(same_ids=(("a", "b"),))
    links.pairs.append(pl.DataFrame({"platform": ["b"], "user": ["1"], "other_platform": ["c"], "other_user": ["x"]}))
    links.persons.append(pl.DataFrame({"platform": ["c", "d"], "user": ["x", "y"], "person": ["Ann", "Ann"]}))
    links.keys.append(pl.DataFrame({"platform": ["d", "e"], "user": ["y", "z"], "key": ["k", "k"]}))
    everyone = accounts(("a", "1"), ("b", "1"), ("c", "x"), ("d", "y"), ("e", "z"), ("e", "alone"))
    table, report = resolve(everyone, links)
    assert set(persons(table).values()) == {"Ann", "e:alone"}
    assert report["persons"] == 2
    assert report["linked"] == 1


def test_a_link_leads_over_accounts_without_events() -> None:
    links = Links()
    links.pairs.append(
        pl.DataFrame(
            {"platform": ["a", "m"], "user": ["1", "0"], "other_platform": ["m", "b"], "other_user": ["0", "2"]}
        )
    )
    table, _ = resolve(accounts(("a", "1"), ("b", "2")), links)
    assert table.rows() == [("a", "1", "a:1"), ("b", "2", "a:1")]


def test_conflicts_and_merged_names_are_reported() -> None:
    links = Links()
    links.persons.append(
        pl.DataFrame({"platform": ["a", "a", "a"], "user": ["1", "2", "1"], "person": ["P", "P", "Q"]})
    )
    table, report = resolve(accounts(("a", "1"), ("a", "2")), links)
    assert set(table["person"]) == {"P"}
    assert report["conflicts"] == {"count": 1, "examples": [{"person": "P", "platform": "a", "users": ["1", "2"]}]}
    assert report["merged_names"] == {"count": 1, "examples": ["P"]}


def test_a_declared_name_may_not_be_anothers_account() -> None:
    links = Links()
    links.persons.append(pl.DataFrame({"platform": ["b"], "user": ["9"], "person": ["a:1"]}))
    with pytest.raises(DataError, match="'a:1' has the name of another"):
        resolve(accounts(("a", "1"), ("b", "9")), links)


def test_keys_are_hashed_with_the_secret() -> None:
    keys = pl.Series([" Ann@Example.org", "ann@example.org", "ＡＮＮ@example.org", "bob", None])
    codes = hashed(keys, SECRET)
    assert codes[0] == codes[1] == codes[2]
    assert codes[0] != codes[3]
    assert codes[4] is None
    assert len(codes[0]) == 64
    assert hashed(keys, SECRET + b"!")[0] != codes[0]


node = st.tuples(st.sampled_from("abc"), st.sampled_from("12345"))


@settings(max_examples=80, deadline=None)
@given(st.sets(node, min_size=1), st.lists(st.tuples(node, node), max_size=12), st.randoms(use_true_random=False))
def test_persons_are_the_components_in_any_order(nodes: set[tuple[str, str]], pairs: list, random: object) -> None:
    group = {account: {account} for account in nodes | {end for pair in pairs for end in pair}}
    for left, right in pairs:  # naive closure: merge sets
        joint = group[left] | group[right]
        for member in joint:
            group[member] = joint
    shuffled = [(right, left) if random.random() < 0.5 else (left, right) for left, right in pairs]  # type: ignore[attr-defined]
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    links = Links()
    for left, right in shuffled:
        frame = {"platform": [left[0]], "user": [left[1]], "other_platform": [right[0]], "other_user": [right[1]]}
        links.pairs.append(pl.DataFrame(frame))
    table, _ = resolve(accounts(*nodes), links)
    expected = {account: min(":".join(member) for member in group[account]) for account in nodes}
    assert persons(table) == expected
