"""All methods and the blend on real data: the table of each data set, with intervals, paired tests and cold cohorts.

    ISTHMUS_DATA=... python benchmarks/bench_methods.py --out benchmarks/reports/NAME [DATASET ...]

Writes DATASET-DOMAIN.json (everything) and one summary table a data set, and rebuilds README.md of the folder from
all JSON files there. Nothing row by row, no title and no id of the data enters a report.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import polars as pl

import isthmus as im
from isthmus.data.importer import import_corpus
from isthmus.evaluate.cards import data_card
from isthmus.evaluate.compare import compare, slices
from isthmus.evaluate.protocol import Outcome, judge
from isthmus.evaluate.report import Cards, Report
from isthmus.evaluate.sections import Section
from isthmus.split.cohorts import build_task
from isthmus.split.temporal import TEST
from isthmus.train.fit import FitSettings

HERE = Path(__file__).parent
#: Data set -> (spec, protocol, target domains).
SETS = {
    "movielens": ("movielens_latest_small", "time", ["movies"]),
    "movielens-last": ("movielens_latest_small", "leave-last", ["movies"]),
    "steam": ("steam_australian", "time", ["games"]),
    "steam-last": ("steam_australian", "leave-last", ["games"]),
    "fedcsr": ("fedcsr", "time", ["Food", "Kitchen"]),
    "beauty_sports_toys": ("beauty_sports_toys", "leave-last", ["Beauty", "Toys", "Sports"]),
}
METRICS = ("ndcg@10", "recall@10", "ndcg@50", "recall@50", "auc")


def titled(corpus: im.Corpus) -> im.Corpus:
    """Return the corpus without items that have no title, and without their events."""
    items = corpus.items.filter(pl.col("title").is_not_null())
    events = corpus.events.join(items, on=["platform", "item"], how="semi", maintain_order="left")
    tables = {"events": events, "items": items, "identities": corpus.identities}
    notes = {key: corpus.manifest[key] for key in ("time", "cleaning") if key in corpus.manifest}
    return im.Corpus.from_tables(tables, name=corpus.name, notes=notes)


def corpus_of(spec: str, folder: Path) -> im.Corpus:
    corpus = import_corpus(HERE.parent / "configs" / f"{spec}.toml", folder / spec)
    return titled(corpus) if spec in ("fedcsr", "five_platforms") else corpus


def measure(name: str, domain: str, corpus: im.Corpus, protocol: str, budget: float) -> dict[str, object]:
    """Return the report of one target domain, with the seconds of each step."""
    split = im.Split.make(corpus, protocol=protocol, valid_share=0.1, test_share=0.1)
    start = time.perf_counter()
    model = im.Recommender.fit(split, targets=[domain], settings=FitSettings(budget=budget))
    fitted = time.perf_counter() - start
    task = build_task(split, TEST, domain)
    target = model.targets[domain]
    systems = [model.system(domain), *(model.system(domain, method.name) for method in target.methods)]
    outcomes = [judge(system, task, both=True) for system in systems]
    cards = Cards(f"{name}: {domain}", protocol=split.card, data=data_card(corpus))
    blend = {cohort: dict(zip(target.blend.methods, row, strict=True)) for cohort, row in target.blend.weights.items()}
    section = Section(outcomes, main="blend", title=domain, blend=blend, tuning=target.log)
    data = Report.build(cards, [section]).data
    return {**data, "fit_seconds": round(fitted, 1), "cold": cold(outcomes)}


def cold(outcomes: list[Outcome]) -> list[dict[str, object]]:
    """Return the blend against popularity and TF-IDF on new items and on people with few events, Holm-corrected."""
    wanted = {"new item", "cold person", "1-3 events"}
    parts = [part for part in slices(outcomes[0].task) if part.name in wanted]
    rivals = [out for out in outcomes if out.system in ("blend", "popularity", "recent", "tfidf")]
    rows = compare(rivals, parts, "ndcg@10", main="blend").to_dicts()
    for row in rows:
        part = next(part for part in parts if part.name == row["slice"])
        for out in (rivals[0], next(out for out in rivals if out.system == row["system"])):
            values = part.values(out, ["ndcg@10"])
            row["blend" if out.system == "blend" else "rival"] = float(
                pl.Series(values.ravel()).drop_nans().mean() or 0
            )
    return rows


def markdown(folder: Path) -> str:
    """Return the summary of all JSON files of ``folder``."""
    lines = [
        "# Methods and blend on real data",
        "",
        (HERE / "methods_preface.md").read_text(encoding="utf-8").strip(),
        "",
    ]
    for file in sorted(folder.glob("*.json")):
        lines += table(json.loads(file.read_text(encoding="utf-8")))
    return "\n".join(lines) + "\n"


def table(data: dict) -> list[str]:
    section = data["sections"][0]
    protocol = data["protocol"]
    lines = [
        f"## {data['title']}",
        "",
        f"{section['persons']:,} test persons, {section['items']:,} items ranked, {section['targets']:,} targets; "
        f"protocol {protocol['protocol']} {protocol.get('cuts', '')}; history excluded; data "
        f"`{protocol['fingerprint'][:12]}`; fit {data['fit_seconds']:.0f} s; {data['created']}.",
        "",
        "| system | N@10 [95 %] | R@10 | N@50 | R@50 | AUC | blend − system, p (Holm) | history rankable N@10 | s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in section["systems"]:
        value = row["metrics"]
        test = row["test"]
        against = f"{test['difference']:+.4f}, {test['p_holm']:.4f}" if test else ""
        first = value["ndcg@10"]
        cells = " | ".join(f"{value[name]['mean']:.4f}" for name in METRICS[1:])
        opposite = f"{row['opposite']['ndcg@10']:.4f}" if row["opposite"] else ""
        name = f"**{row['name']}**" if row["name"] == "blend" else row["name"]
        reach = f"{first['mean']:.4f} [{first['low']:.4f}, {first['high']:.4f}]"
        lines.append(f"| {name} | {reach} | {cells} | {against} | {opposite} | {row['seconds']:.1f} |")
    lines += [
        "",
        "| cold slice | n | rival | blend N@10 | rival N@10 | difference [95 %] | p (Holm) |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in data["cold"]:
        lines.append(
            f"| {row['slice']} | {row['n']:,} | {row['system']} | {row['blend']:.4f} | {row['rival']:.4f} "
            f"| {row['difference']:+.4f} [{row['low']:+.4f}, {row['high']:+.4f}] | {row['p_holm']:.4f} |"
        )
    weights = section["blend"]
    lines += [
        "",
        "Blend weights: "
        + "; ".join(
            f"{cohort}: " + ", ".join(f"{n} {w:.2f}" for n, w in row.items() if w >= 0.01)
            for cohort, row in weights.items()
        )
        + ".",
        "",
    ]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sets", nargs="*", default=list(SETS))
    parser.add_argument("--out", type=Path, default=Path("out/methods"))
    parser.add_argument("--domains", nargs="*", help="only these target domains")
    parser.add_argument("--budget", type=float, default=120)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    options.out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as folder:
        for name in options.sets:
            spec, protocol, domains = SETS[name]
            corpus = corpus_of(spec, Path(folder))
            for domain in [name for name in domains if not options.domains or name in options.domains]:
                start = time.perf_counter()
                data = measure(name, domain, corpus, protocol, options.budget)
                file = options.out / f"{name}-{domain}.json"
                file.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
                (options.out / "README.md").write_text(markdown(options.out), encoding="utf-8")
                print(f"{name} {domain}: {time.perf_counter() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main()
