"""Fusion of modalities: each way finds what only one modality knows, and a missing one costs little; rules; links."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from tests.graphs import AUTHORS, BOOKS, N, data
from tests.pages import run_programs

from isthmus.data.sequences import Histories
from isthmus.encode.fuse import Fuser
from isthmus.encode.linking import link_by_name, link_quality
from isthmus.errors import DataError, InputError
from isthmus.model.base import Features, TrainingData
from isthmus.model.constraints import Constraints
from isthmus.model.fused import FusedContent, ImageContent
from isthmus.testing import check_method

HOWS = ("concat", "gated", "experts", "attention")


def looks(seed: int = 0, strength: float = 3.0) -> np.ndarray:
    """Return vectors in which books of one author look alike."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(AUTHORS, 12)) * strength
    return (centres[np.arange(N) // BOOKS] + rng.normal(size=(N, 12))).astype(np.float32)


def world() -> TrainingData:
    pictures = looks(1)
    pictures[::7] = 0  # some books have no picture
    return data({"image": pictures}, vectors=looks(2, strength=0.0))


@pytest.mark.parametrize("how", HOWS)
def test_every_way_of_fusing_keeps_the_contract(how: str) -> None:
    check_method(lambda chosen: FusedContent({"how": how, **chosen}), world())


@pytest.mark.parametrize("how", HOWS)
def test_the_unmet_book_of_the_author_comes_first_also_when_half_is_gone(how: str) -> None:
    known = world()
    method = FusedContent({"how": how}).fit(known)
    unmet = np.arange(BOOKS - 1, N, BOOKS)
    asked = Histories.of([[author * BOOKS, author * BOOKS + 1, author * BOOKS + 2] for author in range(AUTHORS)])

    def right() -> float:
        scores = method.score(asked)[:, unmet]
        return float(np.mean(scores.argmax(axis=1) == np.arange(AUTHORS)))

    assert right() >= 0.8
    assert known.features.graph is not None
    half = {"image": known.features.more["image"] * (np.arange(N) % 2 == 0)[:, None]}
    thin = Features(vectors=known.features.vectors, graph=known.features.graph, more=half)
    method.restore(method.state(), thin)
    assert right() >= 0.6
    method.restore(method.state(), Features(vectors=known.features.vectors, graph=known.features.graph))
    assert np.isfinite(method.score(asked)).all()


def test_pictures_are_needed_and_said() -> None:
    with pytest.raises(InputError, match="image vectors"):
        ImageContent().fit(data())
    bare = TrainingData(Histories.of([[0, 1]]), np.arange(N, dtype=np.int32), N, 0)
    with pytest.raises(InputError, match="at least one modality"):
        FusedContent().fit(bare)


def test_the_cosine_of_fused_vectors_is_the_mean_of_the_cosines() -> None:
    blocks = {"a": looks(3), "b": looks(4)}
    fuser = Fuser.fit(blocks)
    parts, fused = fuser.parts(blocks), fuser.transform(blocks)
    mean = (parts["a"] @ parts["a"].T + parts["b"] @ parts["b"].T) / 2
    assert np.allclose(fused @ fused.T, mean, atol=1e-5)
    with pytest.raises(DataError, match="lacks b"):
        fuser.transform({"a": blocks["a"]})
    with pytest.raises(DataError, match="no modality"):
        Fuser.fit({"a": np.zeros((4, 3), np.float32)})


ITEMS = pl.DataFrame({"platform": ["shop"] * 5, "item": ["console", "game", "v1", "v2", "other"]})


def rules(*rows: tuple[str, str, str, float]) -> pl.DataFrame:
    return pl.DataFrame(
        [(rule, f"shop:{head}", f"shop:{tail}", weight) for rule, head, tail, weight in rows],
        schema=["rule", "head", "tail", "weight"],
        orient="row",
    )


def test_rules_lift_hold_back_and_exclude() -> None:
    told = [("after", "console", "game", 2.5), ("not before", "v2", "v1", 1.0), ("excludes", "console", "other", 1.0)]
    made = Constraints.of(rules(*told), ITEMS)
    assert made.problems == ()
    target = np.arange(5, dtype=np.int32)
    scores = made.apply(np.ones((3, 5), np.float32), Histories.of([[], [0], [2]]), target)
    gone = -np.inf
    assert scores.tolist() == [[1, 1, 1, gone, 1], [1, 3.5, 1, gone, gone], [1, 1, 1, 1, 1]]
    some = made.apply(np.ones((1, 2), np.float32), Histories.of([[0]]), np.array([1, 4], np.int32))
    assert some.tolist() == [[3.5, gone]]


def test_any_edition_of_the_first_volume_is_enough() -> None:
    links = pl.DataFrame({"platform": ["shop"] * 3, "item": ["v1", "other", "v2"], "entity": ["one", "one", "two"]})
    table = pl.DataFrame({"rule": ["not before"], "head": ["two"], "tail": ["one"]})
    made = Constraints.of(table, ITEMS, links)
    scores = made.apply(np.zeros((2, 5), np.float32), Histories.of([[4], [0]]), np.arange(5, dtype=np.int32))
    assert scores[:, 3].tolist() == [0, -np.inf]


def test_conflicts_are_told() -> None:
    made = Constraints.of(
        rules(
            ("after", "console", "game", 1.0), ("excludes", "console", "game", 1.0),
            ("not before", "v1", "v2", 1.0), ("not before", "v2", "v1", 1.0),
            ("not before", "other", "game", 1.0), ("excludes", "game", "other", 1.0),
            ("after", "game", "game", 1.0), ("after", "game", "lost", 1.0),
        ),
        ITEMS,
    )  # fmt: skip
    told = " | ".join(made.problems)
    for part in (
        "no item or entity 'shop:lost'",
        "it is excluded",
        "wait for each other",
        "which excludes it",
        "itself",
    ):
        assert part in told
    assert len(made.problems) == 5
    with pytest.raises(DataError, match="did you mean 'after'"):
        Constraints.of(rules(("afer", "v1", "v2", 1.0)), ITEMS)
    with pytest.raises(DataError, match="lacks column"):
        Constraints.of(pl.DataFrame({"rule": ["after"]}), ITEMS)


def test_lists_keep_the_rules() -> None:
    from tests.small import corpus

    from isthmus.recommender import Recommender
    from isthmus.recommender.constrained import constrained
    from isthmus.split.temporal import Split
    from isthmus.train.fit import FitSettings

    log = [("shop", f"u{u}", f"i{(u + step) % 6}", u + step) for u in range(12) for step in range(4)]
    made = Recommender.fit(
        Split.make(corpus(log), protocol="leave-last"), settings=FitSettings(methods=("popularity",), budget=0)
    )
    table = pl.DataFrame({"rule": ["not before"], "head": ["shop:i0"], "tail": ["shop:i5"]})
    ruled = constrained(made, table)
    newcomer = pl.DataFrame({"platform": ["shop"], "user": ["nobody"]})
    assert "i0" in made.recommend(newcomer, k=6)["item"].to_list()
    assert "i0" not in ruled.recommend(newcomer, k=6)["item"].to_list()
    assert ruled.recommend(newcomer, k=6).height == 5


def test_names_link_and_doubtful_ones_do_not() -> None:
    titles = ["Matrix, The (1999)", "Solaris (2002)", "King Kong", "三体", None, "Nothing like it"]
    items = pl.DataFrame({"platform": ["p"] * 6, "item": list("012345"), "title": titles})
    entities = ["w:The_Matrix", "w:Solaris_(1972_film)", "w:Solaris_(2002_film)", "w:King_Kong_(1933_film)",
                "w:King_Kong_(2005_film)", "w:三体", "w:三体"]  # fmt: skip
    found = link_by_name(items, pl.Series(entities))
    assert dict(found.select("item", "entity").iter_rows()) == {
        "0": "w:The_Matrix", "1": "w:Solaris_(2002_film)", "3": "w:三体",
    }  # fmt: skip
    labelled = found.with_columns(entity=pl.Series(["w:The_Matrix", "w:Solaris_(1972_film)", "w:三体"]))
    quality = link_quality(found, labelled)
    assert quality == {"precision": pytest.approx(2 / 3), "recall": pytest.approx(2 / 3), "checked": 3.0}
    assert link_quality(found.clear(), labelled)["precision"] == 0


@pytest.mark.real
def test_names_link_movies_with_high_precision(real_data: object) -> None:
    from pathlib import Path

    mapping = pl.read_csv(
        Path(str(real_data)) / "ml1m_dbpedia_kg" / "mappings.tsv", separator="\t", has_header=False,
        new_columns=["item", "title", "entity"], schema_overrides={"column_1": pl.String}, quote_char=None,
    )  # fmt: skip
    table = mapping.select(platform=pl.lit("m"), item=pl.col("item").cast(pl.String), title="title", entity="entity")
    quality = link_quality(link_by_name(table, table["entity"]), table)
    assert 0.95 < quality["precision"] <= 1
    assert 0.5 < quality["recall"] < 1


def test_the_examples_of_the_page_run() -> None:
    run_programs("fusion.md", 2)
