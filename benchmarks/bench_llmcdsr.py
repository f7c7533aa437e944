"""The check against another's measurement: Food and Kitchen of LLM-CDSR's cut, its own validation and test rows.

    ISTHMUS_DATA=... python benchmarks/bench_llmcdsr.py > benchmarks/reports/NAME.md

Test persons are never learned from: their history is context, their last item the target. Whole target catalogue,
history excluded. Prints a Markdown table beside the figures of the evaluation card.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl

import isthmus as im
from isthmus.data.importer import import_corpus
from isthmus.data.sequences import Histories
from isthmus.evaluate.compare import everybody, summarise
from isthmus.evaluate.protocol import judge
from isthmus.model.base import Features, Method, TrainingData
from isthmus.recommender.readers import vocabulary
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import TEST, HeldOut
from isthmus.train.fit import FitSettings, training_data
from isthmus.train.methods import make
from isthmus.types import Floats

HERE = Path(__file__).parent
#: Measured by another with kNN, window 10, decay .8: R@10 / N@10 alone, and with 0.3 TF-IDF.
CARD = {
    "Food": ("kNN .2067 / .1339, + 0.3 TF-IDF .2167 / .1401"),
    "Kitchen": ("kNN + source .0785 / .0431, + 0.3 TF-IDF .0738 / .0427"),
}


class Sum:
    """kNN plus a fixed share of TF-IDF, both scaled by their largest score a person."""

    def __init__(self, name: str, knn: Method, tfidf: Method, share: float) -> None:
        self.name, self.parts = name, ((knn, 1.0), (tfidf, share))

    def score(self, histories: Histories) -> Floats:
        """Return the sum."""
        total = np.zeros((len(histories), self.parts[0][0].target.size), np.float32)
        for method, share in self.parts:
            scores = method.score(histories)
            total += np.float32(share) * scores / np.maximum(scores.max(axis=1, keepdims=True), 1e-9)
        return total


def with_context(split: im.Split, data: TrainingData) -> TrainingData:
    """Return the training data with the histories of held-out persons, all but their targets."""
    events = split.known(TEST)
    return replace(data, histories=Histories.from_frame(events, events["person"].unique().sort().to_numpy()))


def main() -> None:
    warnings.filterwarnings("ignore")
    with TemporaryDirectory() as folder:
        report(import_corpus(HERE.parent / "configs" / "llmcdsr.toml", Path(folder) / "corpus"))


def report(corpus: im.Corpus) -> None:
    user = corpus.identities["user"]
    accounts = {part: corpus.identities.filter(user.str.starts_with(f"{part}-")) for part in ("valid", "test")}
    split = im.Split.make(corpus, protocol="leave-last", held_out=HeldOut(accounts["valid"], accounts["test"]))
    features = Features(vocabulary(split).transform(corpus.items["title"].fill_null("").to_list()))
    print("# Food and Kitchen on LLM-CDSR's own test rows\n")
    print("Made by `benchmarks/bench_llmcdsr.py`. Test persons are context only; whole target catalogue; history")
    print(f"excluded; 95 % bootstrap intervals; data `{corpus.fingerprint[:12]}`.\n")
    for domain in ("Food", "Kitchen"):
        task = build_task(split, TEST, domain)
        data = training_data(split, TEST, domain, features)
        systems: list[object] = []
        for word, learned in (("", data), (", test histories learned from too", with_context(split, data))):
            for sources in (False, True):
                where = ("source + target" if sources else "target only") + word
                knn = make("knn", {"norm": 0.5, "fame": 0.5, "decay": 0.8, "sources": sources}).fit(learned)
                tfidf = make("tfidf", {"decay": 0.8, "sources": sources}).fit(learned)
                systems += [Sum(f"kNN, {where}", knn, tfidf, 0.0), Sum(f"kNN + 0.3 TF-IDF, {where}", knn, tfidf, 0.3)]
        model = im.Recommender.fit(split, targets=[domain], settings=FitSettings(budget=60))
        systems.append(model.system(domain))
        outcomes = [judge(system, task) for system in systems]
        rows = summarise(outcomes, everybody(task), ["recall@10", "ndcg@10"])
        print(f"## {domain}: {len(task)} test persons, {task.items.size:,} items\n\nCard: {CARD[domain]} (s.e. "
              f"{'.023' if domain == 'Food' else '.010'})\n")  # fmt: skip
        print("| system | R@10 [95 %] | N@10 [95 %] |\n|---|---|---|")
        for system in rows["system"].unique(maintain_order=True):
            cells = [
                f"{row['mean']:.4f} [{row['low']:.4f}, {row['high']:.4f}]"
                for row in rows.filter(pl.col("system") == system).iter_rows(named=True)
            ]
            print(
                f"| {'blend of all methods, chosen on valid' if system == 'blend' else system} | {' | '.join(cells)} |"
            )
        print(flush=True)


if __name__ == "__main__":
    main()
