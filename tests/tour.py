"""The two logs that the README's tour starts from, drawn from a world whose answer is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from isthmus.data.simulate import WORLD, Place, World, twin_world

PLACES = (
    Place("shop", "books", "books", "u{}", "b{}", (("view", 1.0), ("purchase", 0.4))),
    Place("videos", "films", "films", "v{}", "f{}", (("play", 1.0), ("like", 0.3))),
)
PLAN = replace(WORLD, places=PLACES, persons=150, items=120, themes=6, chinese=0.3)
WORDS = {"view": "look", "purchase": "buy", "play": "play", "like": "like"}


def world(seed: int = 3) -> World:
    return twin_world(seed, PLAN)


def write_tour(folder: Path) -> None:
    """Write shop.csv and videos.csv: one login for both, a title on every line, local time without a zone."""
    tables = world().tables
    titles = tables["items"].select("platform", "item", "title")
    events = tables["events"].join(titles, on=["platform", "item"]).join(tables["identities"], on=["platform", "user"])
    local = pl.col("ts").dt.convert_time_zone("Europe/Berlin").dt.strftime("%Y-%m-%d %H:%M:%S")
    login = pl.col("person").str.replace("person-", "00")
    said = events.sort("ts").with_columns(when=local, login=login, did=pl.col("event").replace_strict(WORDS))
    shop = said.filter(pl.col("platform") == "shop")
    shop.select("login", "item", "title", "did", "when").write_csv(folder / "shop.csv")
    videos = said.filter(pl.col("platform") == "videos")
    videos.select("login", "item", "title", "did", "when").write_csv(folder / "videos.csv", separator=";")
