"""Simulated worlds: a town with three platforms, and pairs of domains whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

import polars as pl

from isthmus.data.simulate.logs import write_logs
from isthmus.data.simulate.worlds import Place, Plan, World, draw

TOWN: Final = (
    Place(
        platform="bookshop",
        domain="books",
        style="books",
        user="{}",
        item="978{}",
        habits=(("view", 1.0), ("cart", 0.35), ("purchase", 0.3), ("rate", 0.18)),
    ),
    Place(
        platform="filmhouse",
        domain="films",
        style="films",
        user="viewer_{}",
        item="tt{}",
        habits=(("play", 1.0), ("rate", 0.4), ("like", 0.1)),
        steps=10,
    ),
    Place(
        platform="jukebox",
        domain="music",
        style="music",
        user="jb-{}",
        item="track:{}",
        habits=(("play", 1.0), ("like", 0.3), ("share", 0.08)),
    ),
)

PAIR: Final = (
    Place("north", "source", "books", "n{}", "b{}", (("view", 1.0),)),
    Place("south", "target", "films", "s{}", "f{}", (("view", 1.0),)),
)
#: Two domains, everybody in both, little chance: what a known-answer test wants.
WORLD: Final = Plan(places=PAIR, persons=600, items=240, themes=8, shared=1.0, loyalty=0.95, chinese=0.0, late=0.0)
#: The same for worlds about order: few themes, so that everybody meets all; each person in one domain only.
ORDER: Final = replace(WORLD, persons=1600, items=96, themes=6, strands=1, meetings=24.0, shared=0.0, fame=0.0)


def town(seed: int = 0, *, persons: int = 1500) -> World:
    """Return the town: a bookshop, a film service and a music player, and who likes what.

    Examples
    --------
    >>> sorted(town(seed=1, persons=20).tables)
    ['events', 'identities', 'items', 'users']
    """
    return draw(Plan(places=TOWN, persons=persons), seed)


def town_tables(seed: int = 0, persons: int = 1500) -> dict[str, pl.DataFrame]:
    """Return the clean canonical tables of the town: what an import of its raw logs should give."""
    return town(seed, persons=persons).tables


def write_town(folder: Path, *, seed: int = 0, persons: int = 1500) -> Path:
    """Write the town's raw logs (CSV, JSON lines, Parquet, with dirt) and their ``SPEC.toml``; return its path.

    Importing the spec gives :func:`town_tables` again, and the ad clicks. It reads the secret for shared e-mail
    addresses from the environment variable ``ISTHMUS_TOWN_SECRET``.
    """
    return write_logs(town(seed, persons=persons), folder, seed)


def twin_world(seed: int = 0, plan: Plan = WORLD) -> World:
    """Return two domains in which each person has the same tastes: what is learned in one helps in the other.

    Examples
    --------
    >>> twin_world(seed=1, plan=replace(WORLD, persons=10)).tastes["domain"].unique().sort().to_list()
    ['source', 'target']
    """
    return draw(replace(plan, carries_over=True), seed)


def unrelated_world(seed: int = 0, plan: Plan = WORLD) -> World:
    """Return two domains in which a person's tastes have nothing to do with each other.

    Words mean the same in both, so that reading still carries over; with ``plan.telling`` false the texts of the
    second have nothing to do with its items either, and no transfer can help.
    """
    return draw(replace(plan, carries_over=False), seed)


def order_world(seed: int = 0, plan: Plan = ORDER) -> World:
    """Return domains in which only the order of events tells what comes next.

    After an item of one theme mostly comes an item of the theme that follows on it (:attr:`World.next_themes`): any of
    those that the person has not met, whatever the tastes. All persons meet all themes alike and no item is popular, so
    that the set of items somebody met says next to nothing. What follows on what is the same in all domains unless
    ``plan.carries_over`` is false, and shows in the texts.

    Examples
    --------
    >>> world = order_world(seed=1, plan=replace(ORDER, persons=10))
    >>> world.next_themes.columns, world.next_themes.height
    (['domain', 'theme', 'next'], 12)
    """
    return draw(replace(plan, follows=plan.follows or 0.9), seed)


def shuffled_world(seed: int = 0, plan: Plan = ORDER) -> World:
    """Return domains in which the order of events is noise: each person meets what she likes, at any time.

    The catalogues are those of :func:`order_world`. Here the set of items somebody met says everything that can be
    known about the next one.
    """
    return draw(replace(plan, follows=0.0), seed)
