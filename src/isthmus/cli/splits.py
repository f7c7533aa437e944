"""Verbs on splits: split, audit."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.show import Json, Protocol, Verbose, facts, put_json, say, table, wants_json
from isthmus.errors import InputError, LeakError

if TYPE_CHECKING:
    from isthmus.split.temporal import HeldOut

app = typer.Typer()


@app.command("split")
def split_(
    corpus: Annotated[Path, typer.Argument(metavar="CORPUS", help="Folder of a corpus.")],
    out: Annotated[Path, typer.Option(metavar="SPLIT", help="Folder for the split.")],
    protocol: Annotated[
        Protocol, typer.Option(help="One cut over all platforms, or each person's last events.")
    ] = "time",
    valid_share: Annotated[float, typer.Option(help="Share of events that choose.")] = 0.1,
    test_share: Annotated[float, typer.Option(help="Share of events that measure; 0: none.")] = 0.1,
    cut: Annotated[
        list[str] | None, typer.Option(metavar="DATE", help="Start of test, or of valid and of test; ISO, UTC.")
    ] = None,
    valid_users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Accounts that choose, by their last event (leave-last).")
    ] = None,
    test_users: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Accounts that are measured, by their last event.")
    ] = None,
    few_shot: Annotated[
        str | None, typer.Option(metavar="DOMAIN", help="Let some people keep only few training events there.")
    ] = None,
    keep: Annotated[int, typer.Option(help="With --few-shot: events each of them keeps.")] = 3,
    few_share: Annotated[float, typer.Option(help="With --few-shot: share of the people.")] = 0.5,
    seed: Annotated[int, typer.Option(help="With --few-shot: which people.")] = 0,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Split a corpus into what is learned from, what chooses and what is measured."""
    from isthmus.data.corpus import Corpus
    from isthmus.split.temporal import Split

    if keep < 0 or not 0 < few_share <= 1:
        raise InputError(f"--keep {keep} and --few-share {few_share}", fix="keep 0 or more, a share above 0 up to 1")
    split = Split.make(
        Corpus.open(corpus),
        protocol=protocol,
        valid_share=valid_share,
        test_share=test_share,
        cuts=[_date(text) for text in cut or []],
        held_out=_held_out(valid_users, test_users),
    )
    if few_shot is not None:
        split = split.few_shot(few_shot, keep=keep, share=few_share, seed=seed)
    split.save(out)
    if wants_json():
        put_json({"split": str(out), **split.card})
        return
    facts("split", {name: _words(value) for name, value in split.card.items()})
    say(f"split: {out}")


@app.command("audit")
def audit_(
    split: Annotated[Path, typer.Argument(metavar="SPLIT", help="Folder of a split.")],
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Look for what the test part would give away; exit code 2 if there is a leak."""
    from isthmus.split.leaks import audit
    from isthmus.split.temporal import Split

    findings = audit(Split.open(split))
    rows = [(finding.check, finding.level, finding.count, finding.message) for finding in findings]
    columns = ("check", "level", "count", "message")
    leaks = [finding for finding in findings if finding.level == "refuse"]
    if wants_json():
        put_json({"leaks": len(leaks), "findings": [dict(zip(columns, row, strict=True)) for row in rows]})
    table("leak audit", columns, rows)
    if leaks:
        raise typer.Exit(LeakError.exit_code)


def _date(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise InputError(
            f"'{text}' is no date", where="--cut", fix="write 2014-06-30 or 2014-06-30T12:00:00Z"
        ) from None


def _held_out(valid: Path | None, test: Path | None) -> HeldOut | None:
    if valid is None and test is None:
        return None
    if valid is None or test is None:
        raise InputError("--valid-users and --test-users need each other", fix="give both")
    from isthmus.pipeline.frames import read_users
    from isthmus.split.temporal import HeldOut

    return HeldOut(valid=read_users(valid), test=read_users(test))


def _words(value: object) -> object:
    return ", ".join(f"{name} {part}" for name, part in value.items()) if isinstance(value, dict) else value
