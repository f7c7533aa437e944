"""Made-up files in the formats of public data sets; each function writes some and returns the environment they need."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path


def rows(path: Path, *lines: str, encoding: str = "utf-8") -> None:
    path.write_text("\n".join(lines) + "\n", encoding=encoding)


def packed(path: Path, records: list[object], shape: Callable[[object], str] = json.dumps) -> None:
    text = "".join(shape(record) + "\n" for record in records)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())


def amazon_2014(folder: Path) -> dict[str, str]:
    for number, name in enumerate(("Books", "Movies_and_TV")):
        items = [f"000{number}A", f"B00{number}"]
        reviews = [
            {
                "reviewerID": f"A{user}",
                "asin": item,
                "overall": 4.0,
                "reviewText": "fine",
                "unixReviewTime": 1.3e9 + user,
            }
            for user in range(3)
            for item in items
        ]
        meta = [
            {
                "asin": items[0],
                "title": "Bob's &amp; Ann's",
                "categories": [["Top", "Sub"]],
                "brand": "X",
                "price": 3.5,
            },
            {"asin": items[1], "description": "O'Neill", "categories": [["Top"]], "imUrl": "http://x/1.jpg"},
        ]
        packed(folder / f"reviews_{name}_5.json.gz", reviews)
        packed(folder / f"meta_{name}.json.gz", meta, repr)
    return {"AMAZON_REVIEWS": str(folder)}


def amazon_2018(folder: Path) -> dict[str, str]:
    for number, name in enumerate(("Books", "Movies_and_TV")):
        items = [f"000{number}A", f"B00{number}"]
        reviews = [
            {"overall": 4.0, "reviewerID": f"A{user}", "asin": item, "unixReviewTime": 1_400_000_000 + user}
            for user in range(3)
            for item in items
        ]
        meta = [
            {
                "category": ["Top", "Sub"],
                "description": ["One.", "Two."],
                "title": "Bob's &amp; Ann's",
                "asin": items[0],
            },
            {"category": [], "description": [], "title": "海底 Reef", "asin": items[1], "imageURL": ["http://x/1.jpg"]},
        ]
        packed(folder / f"{name}_5.json.gz", reviews)
        packed(folder / f"meta_{name}.json.gz", meta)
    return {"AMAZON_REVIEWS": str(folder)}


def amazon_2023(folder: Path) -> dict[str, str]:
    for number, name in enumerate(("Books", "Movies_and_TV")):
        items = [f"000{number}A", f"B00{number}"]
        reviews = [
            {
                "rating": 4.0,
                "asin": "V1",
                "parent_asin": item,
                "user_id": f"A{user}",
                "timestamp": 1_588_615_855_070 + user,
            }
            for user in range(3)
            for item in items
        ]
        meta = [
            {"parent_asin": items[0], "title": "Bob's &amp; Ann's", "description": ["One."], "features": ["Two."],
             "categories": ["Top", "Sub"], "store": "S", "price": None},
            {"parent_asin": items[1], "title": "海底 Reef", "description": [], "features": [], "categories": []},
        ]  # fmt: skip
        packed(folder / f"{name}.jsonl", reviews)
        packed(folder / f"meta_{name}.jsonl.gz", meta)
    return {"AMAZON_REVIEWS": str(folder)}


def douban(folder: Path) -> dict[str, str]:
    for name in ("books", "movies", "music"):
        rows(
            folder / f"{name}.csv",
            "item_id,name,summary,tags",
            "007,深海潜水,讲述大海,海洋/纪实",
            '8,江湖,"剑,侠",武侠',
        )
        rows(
            folder / f"{name}_ratings.csv",
            "\ufeffuser_id,item_id,rating,time",
            *(f"u{user},{item},{user + 1},2019-05-0{user + 1}" for user in range(3) for item in ("007", "8")),
        )
    return {"DOUBAN": str(folder)}


def goodbooks(folder: Path) -> dict[str, str]:
    rows(folder / "ratings.csv", "user_id,book_id,rating", *(f"{u},{b},{u}" for u in (1, 2, 3) for b in (1, 2)))
    rows(folder / "to_read.csv", "user_id,book_id", "1,3")
    rows(
        folder / "books.csv",
        "book_id,title,authors,original_publication_year,language_code,image_url",
        '1,"The Reef, Vol. 1",A. Diver,2008.0,eng,http://x/1.jpg',
        "2,三体,刘慈欣,2008.0,zho,http://x/2.jpg",
        "3,Wreck,B. Diver,,,",
    )
    return {"GOODBOOKS": str(folder)}


def movielens_1m(folder: Path) -> dict[str, str]:
    rows(folder / "ratings.dat", *(f"{u}::{m}::{u}::97830076{m}" for u in (1, 2, 3) for m in (1, 2)))
    rows(
        folder / "movies.dat",
        "1::Misérables, Les (1995)::Drama|Musical",
        "2::Jumanji (1995)::Comedy",
        encoding="latin-1",
    )
    rows(folder / "users.dat", "1::F::1::10::48067", "2::M::56::16::70072", "3::M::25::15::55117")
    return {"MOVIELENS": str(folder)}


def movielens_csv(folder: Path) -> dict[str, str]:
    rows(
        folder / "ratings.csv",
        "userId,movieId,rating,timestamp",
        *(f"{u},{m},{u}.5,112{u}" + "000000" for u in (1, 2) for m in (1, 2)),
    )
    rows(
        folder / "movies.csv",
        "movieId,title,genres",
        '1,"American President, The (1995)",Comedy|Drama',
        "2,Heat (1995),Action",
    )
    return {"MOVIELENS": str(folder)}


def recbole(folder: Path) -> dict[str, str]:
    rows(
        folder / "toy.inter",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float",
        *(f"{u}\t{i}\t{u}\t88125094{u}.0" for u in (1, 2, 3) for i in (1, 2)),
    )
    rows(
        folder / "toy.item",
        "item_id:token\tmovie_title:token_seq\tclass:token_seq",
        '1\tToy "Story"\tAnimation Comedy',
        "2\tGoldenEye\tAction",
    )
    rows(folder / "toy.user", "user_id:token\tage:token\tgender:token", "1\t24\tM", "2\t53\tF", "3\t23\tM")
    return {"RECBOLE": str(folder), "RECBOLE_NAME": "toy"}


#: Ready spec -> who writes its files.
MAKERS = {
    "amazon_reviews_2014": amazon_2014,
    "amazon_reviews_2018": amazon_2018,
    "amazon_reviews_2023": amazon_2023,
    "douban_csv": douban,
    "goodbooks_10k": goodbooks,
    "movielens_1m": movielens_1m,
    "movielens_20m_25m": movielens_csv,
    "recbole": recbole,
}
