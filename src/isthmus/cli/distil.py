"""The verb that makes small models of large ones: distil."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer

from isthmus.cli.show import Json, Verbose, facts, put_json, say, wants_json
from isthmus.errors import InputError

if TYPE_CHECKING:
    from isthmus.recommender import Recommender
    from isthmus.split.temporal import Split

app = typer.Typer()

Student = Literal["lists", "vectors", "static", "layers"]
#: The flags that each student has besides those of all.
_OWN = {
    "lists": ("objective", "kept", "temperature", "epochs", "people", "also"),
    "vectors": ("objective", "dim", "temperature", "epochs", "people", "also"),
    "static": ("dim",),
    "layers": ("layers", "epochs"),
}


@app.command("distil")
def distil_(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="Folder that fit wrote. For static and layers also a language model, or bundled."
        ),
    ],
    split: Annotated[Path, typer.Argument(metavar="SPLIT", help="Folder of the split it was fitted on.")],
    out: Annotated[Path, typer.Option(metavar="MODEL2", help="Folder for the student.")],
    student: Annotated[
        Student,
        typer.Option(
            help="lists: weights from item to item. vectors: two vectors an item. static: a text encoder of token "
            "vectors. layers: the language model with fewer layers."
        ),
    ] = "lists",
    also: Annotated[
        list[Path] | None, typer.Option(metavar="MODEL", help="One more teacher, fitted on the same split. Repeatable.")
    ] = None,
    objective: Annotated[
        list[str] | None, typer.Option(metavar="NAME=WEIGHT,…", help="score, list; for vectors also vector.")
    ] = None,
    kept: Annotated[int | None, typer.Option(min=1, help="Weights of each item (lists); default 200.")] = None,
    dim: Annotated[
        int | None, typer.Option(min=1, help="Length of the vectors; default 64, and 256 for static.")
    ] = None,
    layers: Annotated[int | None, typer.Option(min=1, help="Layers that stay (layers); default half.")] = None,
    temperature: Annotated[float | None, typer.Option(help="The smaller, the more first places count.")] = None,
    epochs: Annotated[float | None, typer.Option(min=0, help="At most; default 20, and 1 for layers.")] = None,
    people: Annotated[
        int | None, typer.Option(min=1, help="Persons whose lists are imitated, at most; default 8000.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="For everything that draws.")] = 0,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Teach a small student what a fitted model says, or what its language model reads; no label is looked at."""
    from isthmus.cli.transfer import read_weights
    from isthmus.files import require_free
    from isthmus.split.temporal import Split

    given: dict[str, object] = {"objective": read_weights(objective), "kept": kept, "dim": dim, "layers": layers}
    given |= {"temperature": temperature, "epochs": epochs, "people": people, "also": also or None}
    chosen = _checked(student, given)
    require_free(out)
    opened = Split.open(split)
    if student in ("lists", "vectors"):
        _distil_model([Path(model), *(also or [])], opened, out, {"student": student, "seed": seed, **chosen})
    else:
        _distil_reader(model, opened, out, student, {"seed": seed, **chosen})


def _checked(student: str, given: Mapping[str, object]) -> dict[str, object]:
    """Return the flags that were given; refuse those that mean nothing to this student."""
    chosen = {name: value for name, value in given.items() if value is not None}
    wrong = [name for name in chosen if name not in _OWN[student]]
    if wrong:
        flags = ", ".join(f"--{name}" for name in _OWN[student])
        raise InputError(f"the student '{student}' has no --{wrong[0]}", fix=f"its own flags: {flags}")
    return chosen


def _distil_model(teachers: list[Path], split: Split, out: Path, chosen: dict[str, object]) -> None:
    from isthmus.recommender import Recommender
    from isthmus.recommender.distilled import distil
    from isthmus.transfer.distil import DistilSettings

    renamed = {"objective": "objectives"}
    words = {renamed.get(name, name): value for name, value in chosen.items() if name != "also"}
    if "epochs" in words:
        words["epochs"] = int(float(str(words["epochs"])))
    how = DistilSettings(**words)  # type: ignore[arg-type]
    opened = [Recommender.open(teacher) for teacher in teachers]
    made = distil(opened, split, how).save(out)
    _tell(made, opened, split, out)


def _tell(made: Recommender, teachers: list[Recommender], split: Split, out: Path) -> None:
    """Show how much of the teachers' lists is kept, and what serving costs, for each domain."""
    from isthmus.recommender.distilled import serving_cost, some_histories

    said = {}
    for domain, target in made.targets.items():
        some = some_histories(split)
        costs = [serving_cost(each, domain, some) for each in teachers]
        mine = serving_cost(made, domain, some)
        agreed = target.log[-1]["agreement@10"]
        said[domain] = {
            "agreement@10": agreed,
            "student": {"ms_one": mine.one, "ms_batch": mine.batch, "megabytes": mine.megabytes},
            "teacher": {
                "ms_one": sum(cost.one for cost in costs),
                "ms_batch": sum(cost.batch for cost in costs),
                "megabytes": sum(cost.megabytes for cost in costs),
            },
            "log": target.log,
        }
    if wants_json():
        put_json({"model": str(out), "targets": said})
        return
    for domain, row in said.items():
        shown: dict[str, object] = {"of the teacher's ten items": f"{100 * float(str(row['agreement@10'])):.1f} %"}
        for name, unit in (("ms_one", "ms, one person"), ("ms_batch", "ms a person, many"), ("megabytes", "MB")):
            pair = [cast("dict[str, float]", row[who])[name] for who in ("teacher", "student")]
            shown[unit] = f"{pair[0]:.3g} → {pair[1]:.3g}"
        facts(domain, shown)
    say(f"model: {out}")


def _distil_reader(model: str, split: Split, out: Path, student: str, chosen: dict[str, object]) -> None:
    """Make a static encoder, or a model with fewer layers, from the language model that ``model`` reads with."""
    from isthmus.recommender.distilled import known_texts, reads_with

    teacher, texts = reads_with(model), known_texts(split)
    if student == "static":
        from isthmus.transfer.distil_static import StaticSettings, distil_static

        said = distil_static(texts, out, model=teacher, settings=StaticSettings(**chosen))  # type: ignore[arg-type]
    else:
        from isthmus.transfer.distil_layers import LayerSettings, distil_layers

        said = distil_layers(texts, out, model=teacher, settings=LayerSettings(**chosen))  # type: ignore[arg-type]
    if wants_json():
        put_json({"model": str(out), **said})
        return
    facts(f"student {student}", {name: value for name, value in said.items() if name != "teacher"})
    say(f"model: {out}; read with it by --model {out}")
