"""Verbs that go the whole way: run, demo."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from isthmus.cli.judge import show
from isthmus.cli.learn import Budget, Methods, Model, Target, split_words
from isthmus.cli.lists import Length
from isthmus.cli.show import Json, Protocol, Verbose, put_json, say, wants_json

if TYPE_CHECKING:
    from isthmus.pipeline.steps import Step

app = typer.Typer()


@app.command("run")
def run_(
    spec: Annotated[Path, typer.Argument(metavar="SPEC.toml", help="What is where; see docs/spec.md.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for corpus, split, model, report and lists.")],
    protocol: Annotated[
        Protocol | None, typer.Option(help="Default time, or leave-last where events have an order and no dates.")
    ] = None,
    valid_share: Annotated[float, typer.Option(help="Share of events that choose.")] = 0.1,
    test_share: Annotated[float, typer.Option(help="Share of events that measure; 0: no report.")] = 0.1,
    target: Target = None,
    methods: Methods = None,
    budget: Budget = 180.0,
    seed: Annotated[int, typer.Option(help="For everything that draws.")] = 0,
    model: Model = None,
    k: Length = 10,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Go the whole way from raw logs to lists; a step that is done is not done again."""
    from isthmus.pipeline import RunSettings, run
    from isthmus.train.methods import named

    settings = RunSettings(
        protocol=protocol,
        valid_share=valid_share,
        test_share=test_share,
        targets=split_words(target),
        methods=named(split_words(methods)),
        budget=budget,
        seed=seed,
        model=model,
        k=k,
    )
    _finish(run(spec, out, settings, tell=_tell), out)


@app.command("demo")
def demo_(
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for everything.")] = Path("demo-town"),
    seed: Annotated[int, typer.Option(help="Another seed is another town.")] = 0,
    persons: Annotated[int, typer.Option(min=50, help="How many people live in the town.")] = 1500,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Show the whole way on a simulated town: a bookshop, a film service and a music player."""
    from isthmus.pipeline import demo

    _finish(demo(out, seed=seed, persons=persons, tell=_tell), out)


def _tell(step: Step) -> None:
    say(f"{step.name:<10}{step.seconds:>7.1f} s  {step.said}")


def _finish(steps: list[Step], out: Path) -> None:
    """Show sample lists and the report's figures, or everything as JSON."""
    from isthmus.evaluate.report import Report

    measured = any(step.name == "evaluate" for step in steps)
    if wants_json():
        rows = [{"step": s.name, "said": s.said, "seconds": s.seconds, "kept": s.kept} for s in steps]
        page = str(out / "report" / "report.html") if measured else None
        put_json({"out": str(out), "steps": rows, "report": page, "lists": str(out / "recs.parquet")})
        return
    if not measured:
        say("no test part, so nothing was measured")
        return
    report = Report.open(out / "report")
    for section in cast("list[dict[str, object]]", report.data["sections"]):
        _sample(section)
    say("")
    show(report, out / "report")


def _sample(section: dict[str, object]) -> None:
    """Write one person's history and list in words, one with a hit if there is one."""
    examples = cast("list[dict[str, object]]", section["examples"])
    if not examples:
        return
    lists = [cast("list[dict[str, object]]", example["list"]) for example in examples]
    lucky = [place for place, listed in enumerate(lists) if any(row["hit"] for row in listed[:5])]
    chosen = lucky[0] if lucky else 0
    say(f"\n{section['title']}: somebody who liked")
    for platform, titles in cast("dict[str, list[str]]", examples[chosen]["history"]).items():
        say(f"  {platform}: {' · '.join(titles[:4])}")
    say("  gets (✓: taken later)")
    for place, row in enumerate(lists[chosen][:5], start=1):
        say(f"  {place}. {row['title']}{' ✓' if row['hit'] else ''}")
