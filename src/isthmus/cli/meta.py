"""The verb that learns to adapt to people with few events: meta."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from isthmus.cli.show import Json, Verbose, facts, put_json, say, table, wants_json

if TYPE_CHECKING:
    from isthmus.files import Json as Json_

app = typer.Typer()


@app.command("meta")
def meta_(
    split: Annotated[Path, typer.Argument(metavar="SPLIT", help="Folder of the split the model was fitted on.")],
    target: Annotated[str, typer.Option(metavar="DOMAIN", help="Target domain.")],
    start: Annotated[Path, typer.Option("--from", metavar="MODEL", help="Model that fit wrote, with sequence.")],
    out: Annotated[Path, typer.Option(metavar="MODEL2", help="Folder for the model that adapts.")],
    way: Annotated[
        Literal["anil", "maml", "reptile"], typer.Option(help="anil adapts the head only; the others LoRA weights too.")
    ] = "anil",
    epochs: Annotated[int, typer.Option(min=1, help="Times that every person is a task.")] = 5,
    people: Annotated[int, typer.Option(min=0, help="Test people in the table, at most; 0 for none.")] = 300,
    seed: Annotated[int, typer.Option(min=0, help="For everything that draws.")] = 0,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Learn a start from which few steps on few events fit a new person; kept in the lists if validation says so."""
    from isthmus.files import require_free
    from isthmus.recommender import Recommender
    from isthmus.recommender.adapting import Adapting, with_meta
    from isthmus.split.temporal import Split

    require_free(out)
    how = Adapting(way=way, epochs=epochs, people=people, seed=seed)
    made = with_meta(Recommender.open(start), Split.open(split), target, how).save(out)
    said = cast("dict[str, Json_]", made.card["meta"])[target]
    if wants_json():
        put_json({"model": str(out), "target": target, **said})
        return
    _tell(said, target)
    say(f"model: {out}")


def _tell(said: Json_, target: str) -> None:
    share = float(str(said["share"]))
    facts(
        f"people with 1 to 3 events in {target}, {said['way']}",
        {
            "kept": f"yes, as {share:.0%} of the score" if share else "no: the lists stay as they are",
            "rate, steps": f"{said['rate']}, {said['steps']}",
            "validation people who chose": said["people"],
            "their NDCG@10 without": said["before"],
            "gain, and its standard error": f"{said['gain']:+} ± {said['error']}",
        },
    )
    rows = cast("list[dict[str, list[float | None]]]", said.get("table") or [])
    if rows:
        counts = [f"{n} events ({people})" for n, people in enumerate(rows[0]["people"])]
        table("NDCG@10 on test, by target events shown", ("", *counts, "ms a person"), [
            (row["system"], *row["ndcg@10"], row["ms"]) for row in rows
        ])  # fmt: skip
