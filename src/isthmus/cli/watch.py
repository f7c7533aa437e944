"""The verbs of watch: alert rules for Prometheus and a dashboard for Grafana."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from isthmus.cli.show import Json, Verbose, put_json, say, wants_json

app = typer.Typer()
group = typer.Typer(help="Alert rules and a dashboard for the service.", no_args_is_help=True)
app.add_typer(group, name="watch")

Out = Annotated[Path | None, typer.Option(metavar="FILE", help="Where it is written; default standard output.")]


@group.command("rules")
def rules_(
    out: Out = None,
    runbooks: Annotated[
        str, typer.Option(metavar="URL", help="Address of docs/operate.md, which every alert links to.")
    ] = "docs/operate.md",
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Write the alert rules for Prometheus; the job that scrapes the service is called isthmus."""
    from isthmus.service.watch.shipped import rules

    _give(rules(runbooks), out)


@group.command("dashboard")
def dashboard_(out: Out = None, as_json: Json = False, verbose: Verbose = False) -> None:  # noqa: ARG001
    """Write the dashboard for Grafana; import it there and choose a Prometheus."""
    from isthmus.service.watch.shipped import dashboard

    _give(dashboard(), out)


def _give(text: str, out: Path | None) -> None:
    if out is not None:
        from isthmus.files import new_file

        with new_file(out) as part:
            part.write_text(text, encoding="utf-8")
    if wants_json():
        put_json({"out": None if out is None else str(out), "text": text if out is None else None})
    elif out is None:
        typer.echo(text, nl=False)
    else:
        say(f"wrote {out}")
