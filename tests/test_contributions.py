"""A report says what each modality contributes: much where it is all there is to know, nothing where it is chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from tests.graphs import N, graph, items, readers
from tests.small import events

from isthmus.data.corpus import Corpus
from isthmus.evaluate.report import Report
from isthmus.model.blend import COHORTS, Blend
from isthmus.pipeline.judging import evaluate
from isthmus.recommender import Recommender
from isthmus.split.temporal import Split
from isthmus.train.fit import FitSettings


@pytest.fixture(scope="module")
def report() -> Report:
    histories, known = readers(persons=150), graph()
    log = [
        ("shop", f"u{row:03d}", f"{item:03d}", 10.0 * step + row / 1000)
        for row, (start, stop) in enumerate(zip(histories.indptr, histories.indptr[1:], strict=False))
        for step, item in enumerate(histories.items[start:stop])
    ]
    rng = np.random.default_rng(0)
    words = [" ".join(rng.choice(["red", "blue", "old", "new", "long"], 2)) for _ in range(N)]
    tables = {
        "events": events(log),
        "items": items().with_columns(domain=pl.lit("books"), title=pl.Series(words)),
        "edges": known.edges,
        "links": known.links,
    }
    split = Split.make(Corpus.from_tables(tables, name="shop"), protocol="leave-last")
    settings = FitSettings(methods=("popularity", "tfidf", "graph"), budget=5)
    return evaluate(Recommender.fit(split, settings=settings), split)


def test_the_graph_contributes_and_words_drawn_at_random_do_not(report: Report, tmp_path: Path) -> None:
    rows = {(row["left_out"], row["slice"]): row for row in report.data["sections"][0]["contributions"]}
    assert {left_out for left_out, _ in rows} == {"graph", "text"}
    found = rows["graph", "all"]
    assert found["low"] > 0.05
    assert found["low"] < found["contribution"] < found["high"]
    assert found["p"] < 0.01
    assert found["n"] == 150
    assert abs(rows["text", "all"]["contribution"]) < found["contribution"] / 4
    report.save(tmp_path / "report")
    page = (tmp_path / "report" / "report.html").read_text("utf-8")
    assert "What each modality contributes" in page
    assert page.count('<th scope="row">graph</th>') >= 2, "a system, and a modality that is left out"


def test_the_blend_less_a_method_keeps_its_voice_for_the_others() -> None:
    blend = Blend(("knn", "text", "graph"), dict.fromkeys(COHORTS, (0.2, 0.3, 0.5)), voice=(0.0, 1.0, 2.0), level=-1.0)
    rest = blend.less(["graph"])
    assert rest.weights["cold person"] == pytest.approx((0.4, 0.6, 0.0))
    assert (rest.voice, rest.level) == ((0.0, 1.0, 0.0), -1.0)
    assert blend.less([]).weights["cold person"] == pytest.approx((0.2, 0.3, 0.5))
