"""The town's raw logs as a real town would have them: three formats, three clocks, and dirt of every kind."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from isthmus.data.simulate.worlds import START, YEAR, World, moments
from isthmus.files import storage_errors
from isthmus.rng import generator

SPEC: Final = Path(__file__).parents[1] / "town" / "SPEC.toml"
_WORDS: Final = {
    "bookshop": {"view": "show", "cart": "basket", "purchase": "order", "rate": "review"},
    "filmhouse": {"play": "watch", "rate": "score", "like": "thumb", "ad_click": "advert"},
    "jukebox": {"play": "play", "like": "heart", "share": "sent"},
}
_BOTS: Final = (("bookshop", 400, 0.1), ("bookshop", 200, 30.0), ("jukebox", 200, 60.0))
_DUPLICATES, _STUTTERS, _ADS = 0.02, 0.01, 0.02


def write_logs(world: World, folder: Path, seed: int) -> Path:
    """Write the raw logs of a town, and the ``SPEC.toml`` that imports them; return the spec's path.

    An import of the logs gives the town's clean tables again, plus ad clicks. The secret for the shared
    e-mail addresses is read from the environment variable that the spec names (``ISTHMUS_TOWN_SECRET``).
    """
    folder = Path(folder)
    with storage_errors(folder):
        for platform in _WORDS:
            (folder / platform).mkdir(parents=True, exist_ok=True)
        _bookshop(world, folder / "bookshop", generator(seed, "logs", "bookshop"))
        _filmhouse(world, folder / "filmhouse", generator(seed, "logs", "filmhouse"))
        _jukebox(world, folder / "jukebox", generator(seed, "logs", "jukebox"))
        _links(world).write_csv(folder / "account_links.csv")
        shutil.copyfile(SPEC, folder / "SPEC.toml")
    return folder / "SPEC.toml"


def _bookshop(world: World, folder: Path, rng: np.random.Generator) -> None:
    log = _log(world, "bookshop", rng)
    local = pl.col("ts").dt.convert_time_zone("Asia/Shanghai").dt.strftime("%Y/%m/%d %H:%M:%S")
    stars = pl.when(pl.col("event") == "rate").then((1 + 4 * pl.col("value")).round().cast(pl.Int64).cast(pl.String))
    text = log.select(customer="user", article="item", what="word", stars=stars.fill_null(""), when=local)
    broken = [
        (None, "9780001001", "show", None, "2024/05/01 10:00:00"),
        ("0004711", None, "show", None, "2024/05/01 10:00:00"),
        ("0004711", "9780001001", "review", "47", "2024/05/01 10:00:00"),
        ("0004711", "9780001001", "show", None, "last Tuesday"),
        ("0004711", "9780001001", "show", None, "2099/01/01 00:00:00"),
        ("0004711", "9780001001", "teleport", None, "2024/05/01 10:00:00"),
    ]
    rows = pl.concat([text, pl.DataFrame(broken, schema=text.schema, orient="row")]).write_csv(separator=";")
    (folder / "visits.csv.gz").write_bytes(gzip.compress(rows.encode(), compresslevel=1, mtime=0))
    _soil(_items(world, "bookshop")).select(
        article="item", name="title", about="text", shelf="shelf", author="maker", out=_date("available_from")
    ).write_csv(folder / "books.csv", separator=";", include_bom=True)
    _accounts(world, "bookshop", rng).write_csv(folder / "customers.csv", separator=";")


def _filmhouse(world: World, folder: Path, rng: np.random.Generator) -> None:
    log = _log(world, "filmhouse", rng)
    amount = pl.when(pl.col("event") == "rate").then(1 + 9 * pl.col("value")).otherwise("value").round(1)
    at = pl.col("ts").dt.convert_time_zone("Europe/Berlin").dt.strftime("%Y-%m-%dT%H:%M:%S%:z")
    text = log.select(viewer="user", film="item", did="word", amount=amount, at=at).write_ndjson()
    cut_off = '{"viewer": "viewer_0000001", "film": "tt00\n'
    (folder / "log.jsonl").write_text(text + cut_off, encoding="utf-8")
    films = _items(world, "filmhouse").select(
        film="item",
        title="title",
        plot="text",
        genre="categories",
        director="maker",
        since=pl.col("available_from").dt.epoch("ms"),
    )
    films.write_ndjson(folder / "films.jsonl")
    viewers = _accounts(world, "filmhouse", rng)
    viewers.select(viewer="user", contact=pl.struct(mail="mail")).write_ndjson(folder / "viewers.jsonl")


def _jukebox(world: World, folder: Path, rng: np.random.Generator) -> None:
    log = _log(world, "jukebox", rng)
    plays = log.select(listener="user", song="item", kind="word", seconds="value", t=pl.col("ts").dt.epoch("ms"))
    plays.write_parquet(folder / "plays.parquet")
    songs = _items(world, "jukebox").select(
        song="item", title="title", notes="text", tags="shelf", artist="maker", release=_date("available_from")
    )
    songs.write_csv(folder / "songs.tsv", separator="\t", quote_style="never")
    _accounts(world, "jukebox", rng).write_csv(folder / "listeners.tsv", separator="\t")


def _date(column: str) -> pl.Expr:
    return pl.col(column).dt.strftime("%Y-%m-%dT%H:%M:%SZ")


def _items(world: World, platform: str) -> pl.DataFrame:
    items = world.tables["items"].filter(pl.col("platform") == platform)
    maker = pl.col("attributes").str.json_path_match("$.maker")
    return items.with_columns(maker=maker, shelf=pl.col("categories").list.join("|"))


def _log(world: World, platform: str, rng: np.random.Generator) -> pl.DataFrame:
    """Return the events of a platform in time order with the platform's own ``word``, and its dirt."""
    clean = world.tables["events"].filter(pl.col("platform") == platform)
    n = clean.height
    twice = clean.filter(pl.Series(rng.random(n) < _DUPLICATES))
    again = clean.filter(pl.Series(rng.random(n) < _STUTTERS)).with_columns(pl.col("ts") + pl.duration(seconds=1))
    parts = [clean, twice, again, *_bots(world, platform, rng)]
    if platform == "filmhouse":
        ads = clean.filter(pl.Series(rng.random(n) < _ADS))
        parts.append(ads.with_columns(pl.lit("ad_click").alias("event"), value=pl.lit(None, pl.Float64)))
    words = pl.col("event").replace_strict(_WORDS[platform])
    return pl.concat(parts).with_columns(word=words).sort("ts", maintain_order=True)


def _bots(world: World, platform: str, rng: np.random.Generator) -> list[pl.DataFrame]:
    """Return the events of machines: one that opens everything at once, and some that tick like clocks."""
    items = world.tables["items"].filter(pl.col("platform") == platform)["item"]
    first = next(iter(_WORDS[platform]))
    frames = []
    for number, (place, count, gap) in enumerate(_BOTS):
        start = int(rng.integers(YEAR // 2))
        if place == platform:
            seconds = start + np.floor(np.arange(count) * gap).astype(np.int64)
            frame = pl.DataFrame(
                {"item": items.sample(count, with_replacement=True, seed=number), "ts": moments(seconds)}
            )
            frames.append(
                frame.select(
                    pl.lit(platform).alias("platform"),
                    pl.lit(f"bot{number}").alias("user"),
                    "item",
                    pl.lit(first).alias("event"),
                    pl.lit(None, pl.Float64).alias("value"),
                    "ts",
                )
            )
    return frames


def _soil(items: pl.DataFrame) -> pl.DataFrame:
    """Return items with what web shops leave in words: entities, markup, white space, full-width letters."""
    row = pl.int_range(pl.len())
    title = pl.col("title").str.replace_all("&", "&amp;").str.replace_all("'", "&#39;")
    spaced = pl.when(row % 3 == 0).then(pl.lit("  ") + title + "\u00a0").otherwise(title)
    wide = pl.when(row % 5 == 0).then(spaced.str.replace_all("A", "Ａ")).otherwise(spaced)
    chinese = pl.when(pl.col("lang") == "zh").then(pl.col("text").str.replace_all(",", "，")).otherwise("text")
    text = pl.when(row % 4 == 0).then(pl.lit("<p>") + chinese + "</p>").otherwise(chinese)
    return items.with_columns(title=wide, text=text)


def _links(world: World) -> pl.DataFrame:
    """Return which bookshop customer is which viewer, as both asked for it."""
    accounts = world.tables["identities"]
    books, films = (accounts.filter(pl.col("platform") == name) for name in ("bookshop", "filmhouse"))
    return books.join(films, on="person", suffix="_film").select(
        customer="user", service=pl.lit("filmhouse"), viewer="user_film"
    )


def _accounts(world: World, platform: str, rng: np.random.Generator) -> pl.DataFrame:
    """Return the accounts of a platform; the e-mail address stands where the person is on the jukebox too."""
    accounts = world.tables["identities"]
    singers = accounts.filter(pl.col("platform") == "jukebox").select("person")
    known = accounts.join(singers, on="person", how="semi").group_by("person").len().filter(pl.col("len") > 1)
    mine = accounts.filter(pl.col("platform") == platform)
    mail = pl.col("person").str.replace("person-", "citizen.") + "@example.org"
    shouted = pl.Series(rng.random(mine.height) < 0.2)
    frame = mine.join(known, on="person", how="left", maintain_order="left").with_columns(
        mail=pl.when(pl.col("len").is_null()).then(None).when(shouted).then(mail.str.to_uppercase()).otherwise(mail)
    )
    joined = pl.Series(rng.integers(1990, START.year, size=mine.height))
    return frame.select("user", "mail", since=joined)
