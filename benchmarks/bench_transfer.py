"""Transfer on real data: pre-trained against from scratch against no source, at several shares of the target's people.

    ISTHMUS_DATA=... python benchmarks/bench_transfer.py --out benchmarks/reports/NAME [--targets Food ...]
        [--seeds 5] [--shares 0 0.1 1] [--work FOLDER]

For each target: pre-trains a sequence model on the sources (training parts only, never on the target's domain), then
runs ``isthmus.pipeline.trials.trial``. Pre-trained models are kept in ``--work``. Writes TARGET.json for each, and
README.md from all JSON files of the folder. Nothing row by row, no title and no id of the data enters a report.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

import isthmus as im
from bench_methods import corpus_of
from isthmus.evaluate.compare import everybody
from isthmus.evaluate.verdict import Verdict
from isthmus.pipeline.trials import Trial, TrialSettings, trial
from isthmus.recommender.readers import Readers, vocabulary
from isthmus.transfer.pretrain import SequencePretraining, pretrain_sequence

HERE = Path(__file__).parent
#: What each target is pre-trained on: spec -> (protocol, domains or all), and times that all events are gone through.
AMAZON = {"beauty_sports_toys": ("leave-last", ("Beauty", "Sports", "Toys"))}
FAR = {
    **AMAZON,
    "movielens_latest_small": ("time", ()),
    "lastfm": ("leave-last", ()),
    "librarything": ("leave-last", ()),
    "steam_australian": ("time", ()),
}
SOURCES = {
    "far": (FAR, 2),
    "steam": ({"steam200k": ("leave-last", ())}, 6),
    "not-toys": ({"beauty_sports_toys": ("leave-last", ("Beauty", "Sports"))}, 3),
    "not-beauty": ({"beauty_sports_toys": ("leave-last", ("Sports", "Toys"))}, 3),
    "not-sports": ({"beauty_sports_toys": ("leave-last", ("Beauty", "Toys"))}, 3),
    "not-food": ({"fedcsr": ("time", ("Kitchen",))}, 6),
    "not-kitchen": ({"fedcsr": ("time", ("Food",))}, 6),
}
#: Target -> (spec, protocol, domain, sources).
TARGETS = {
    "Food": ("fedcsr", "time", "Food", "far"),
    "Kitchen": ("fedcsr", "time", "Kitchen", "far"),
    "games": ("steam_australian", "time", "games", "steam"),
    "Toys": ("beauty_sports_toys", "leave-last", "Toys", "not-toys"),
    "Beauty": ("beauty_sports_toys", "leave-last", "Beauty", "not-beauty"),
    "Sports": ("beauty_sports_toys", "leave-last", "Sports", "not-sports"),
    "Food-from-Kitchen": ("fedcsr", "time", "Food", "not-food"),
    "Kitchen-from-Food": ("fedcsr", "time", "Kitchen", "not-kitchen"),
    "Food-of-five": ("five_platforms", "leave-last", "Food", "far"),
    "Kitchen-of-five": ("five_platforms", "leave-last", "Kitchen", "far"),
}
METRICS = ("ndcg@10", "recall@10", "ndcg@50", "auc")


def split_of(spec: str, protocol: str, work: Path) -> im.Split:
    folder = work / f"split-{spec}"
    if not folder.exists():
        corpus = corpus_of(spec, work)
        if corpus.path is None:
            corpus.save(work / f"corpus-{spec}")
            corpus = im.Corpus.open(work / f"corpus-{spec}")
        im.Split.make(corpus, protocol=protocol, valid_share=0.1, test_share=0.1).save(folder)
    return im.Split.open(folder)


def pretrained(name: str, work: Path) -> Path:
    sources, epochs = SOURCES[name]
    out = work / f"pretrained-{name}"
    if not out.exists():
        domains = set()
        splits = []
        for spec, (protocol, named) in sources.items():
            split = split_of(spec, protocol, work)
            splits.append(split)
            domains |= set(named or split.corpus.domains)
        settings = SequencePretraining(domains=tuple(sorted(domains)), epochs=epochs)
        pretrain_sequence(splits, out, settings, work=out.with_suffix(".work"))
    return out


def table(found: Trial) -> list[dict[str, object]]:
    """Return one row an arm: the mean of its seeds with the interval over people."""
    rows = []
    for name, outcomes in found.arms.items():
        whole = everybody(found.task)
        means = {metric: float(np.mean([out.mean(metric) for out in outcomes])) for metric in METRICS}
        values = np.mean([whole.values(out, ["ndcg@10"])[:, 0] for out in outcomes], axis=0)
        rng = np.random.default_rng(0)
        draws = [values[rng.integers(values.size, size=values.size)].mean() for _ in range(1000)]
        spread = float(np.std([out.mean("ndcg@10") for out in outcomes]))
        low, high = np.quantile(draws, [0.025, 0.975])
        rows.append({"arm": name, "seeds": len(outcomes), **means, "low": low, "high": high, "seed_sd": spread})
    return rows


def measure(target: str, shares: list[float], settings: TrialSettings, work: Path, out: Path) -> None:
    spec, protocol, domain, source = TARGETS[target]
    sources, _ = SOURCES[source]
    start = time.perf_counter()
    model = pretrained(source, work)
    spent = time.perf_counter() - start
    split = split_of(spec, protocol, work)
    features = Readers(vocabulary(split), None, vectors=True).read(split.corpus.items)
    several = settings.members > 1
    file = out / (f"{target}-members-{settings.members}.json" if several else f"{target}.json")
    title = f"{target}, {settings.members} models averaged" if several else target
    said = json.loads(file.read_text()) if file.exists() else {"target": title, "shares": {}}
    said |= {
        "spec": spec,
        "protocol": split.card,
        "sources": {name: list(named) for name, (_, named) in sources.items()},
        "pretrain_seconds": max(spent, said.get("pretrain_seconds", 0.0)),
        "fingerprint": split.corpus.fingerprint,
    }
    for share in shares:
        start = time.perf_counter()
        part = split if share == 1 else split.thinned(domain, share=share, seed=0)
        chosen = TrialSettings(
            **{**vars(settings), "starts": {"sequence": {**settings.starts["sequence"], "start": str(model)}}}
        )
        found = trial(part, domain, features, chosen, work=work / "trials")
        rivals = tuple(name for name in ("scratch", "no source") if name in found.arms)
        verdict = Verdict.of({name: found.arms[name] for name in ("transfer", *rivals)}, rivals=rivals)
        said["shares"][str(share)] = {
            "persons": len(found.task),
            "items": int(found.task.items.size),
            "arms": table(found),
            "verdict": verdict.outcome,
            "sentence": verdict.sentence,
            "findings": [asdict(finding) for finding in verdict.findings],
            "weights": {
                name: {c: dict(zip(run.blend.methods, row, strict=True)) for c, row in run.blend.weights.items()}
                for name, run in found.runs.items()
            },
            "settings": {"sequence": found.runs["transfer"].settings.get("sequence")},
            "seconds": round(time.perf_counter() - start, 1),
            "when": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        }
        text = json.dumps(said, ensure_ascii=False, indent=1, default=str).replace(str(work), "WORK")
        file.write_text(text + "\n", encoding="utf-8")
        (out / "README.md").write_text(markdown(out), encoding="utf-8")
        print(f"{target} {share}: {verdict.sentence} ({time.perf_counter() - start:.0f} s)", flush=True)


def markdown(folder: Path) -> str:
    preface = HERE / "transfer_preface.md"
    lines = ["# Transfer on real data", "", preface.read_text(encoding="utf-8").strip(), ""]
    found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))]
    lines += [
        "| target | people that teach | transfer ÷ no source | ÷ scratch | ÷ TF-IDF | verdict |",
        "|---|---|---|---|---|---|",
    ]
    for said in found:
        for share, data in said["shares"].items():
            arms = {row["arm"]: row["ndcg@10"] for row in data["arms"]}
            ratios = [
                f"{arms['transfer'] / arms[name]:.2f}" if arms.get(name) else ""
                for name in ("no source", "scratch", "tfidf")
            ]
            lines.append(f"| {said['target']} | {float(share):.0%} | {' | '.join(ratios)} | {data['verdict']} |")
    for said in found:
        sources = ", ".join(f"{name} ({', '.join(some)})" if some else name for name, some in said["sources"].items())
        lines += [
            "",
            f"## {said['target']}",
            "",
            f"Sources of pre-training: {sources}; {said['pretrain_seconds']:.0f} s.",
        ]
        for share, data in said["shares"].items():
            lines += [
                "",
                f"### {float(share):.0%} of the people teach",
                "",
                f"{data['persons']:,} test persons, {data['items']:,} items; {data['seconds']:.0f} s; {data['when']}.",
                f"{data['sentence']}",
                "",
                "| arm | seeds | N@10 [95 %] | sd of seeds | R@10 | N@50 | AUC |",
                "|---|---|---|---|---|---|---|",
            ]
            lines += [
                f"| {row['arm']} | {row['seeds']} | {row['ndcg@10']:.4f} [{row['low']:.4f}, {row['high']:.4f}] "
                f"| {row['seed_sd']:.4f} | {row['recall@10']:.4f} | {row['ndcg@50']:.4f} | {row['auc']:.4f} |"
                for row in data["arms"]
            ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--targets", nargs="*", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--shares", nargs="*", type=float, default=[0.0, 0.1, 1.0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--members", type=int, default=1, help="seeds that are averaged in each delivered carrier")
    parser.add_argument("--no-scratch", action="store_true", help="leave out the arm from scratch")
    parser.add_argument("--budget", type=float, default=60)
    parser.add_argument("--persons", type=int, default=2000, help="validation persons, at most")
    parser.add_argument("--test-persons", type=int, default=None, help="test persons, at most")
    parser.add_argument("--epochs", type=float, help="of the carrier, as many as the product takes by default")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("out/transfer-work"))
    parser.add_argument("--out", type=Path, default=Path("out/transfer"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.threads:
        torch.set_num_threads(options.threads)
    for folder in (options.out, options.work):
        folder.mkdir(parents=True, exist_ok=True)
    # after pre-training the target's events alone teach the carrier, so that "from scratch" knows no source
    starts = {"sequence": {"sources": False, **({} if options.epochs is None else {"epochs": options.epochs})}}
    settings = TrialSettings(
        starts,
        seeds=options.seeds,
        budget=options.budget,
        members=options.members,
        scratch=not options.no_scratch,
        persons=options.persons,
        test_persons=options.test_persons,
    )
    for target in options.targets:
        measure(target, options.shares, settings, options.work.resolve(), options.out)


if __name__ == "__main__":
    main()
