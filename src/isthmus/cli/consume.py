"""The verbs of streams: consume, and the dead letters it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus import __version__
from isthmus.cli.extras import needs
from isthmus.cli.show import Json, Verbose, put_json, say, table, wants_json
from isthmus.errors import InputError

if TYPE_CHECKING:
    from isthmus.client import Client, Event, Receipt
    from isthmus.service.streams.letters import Letters

app = typer.Typer()
group = typer.Typer(help="Messages of a stream that could not be used.", no_args_is_help=True)
app.add_typer(group, name="letters")

To = Annotated[str, typer.Option("--to", metavar="URL", help="Address of the service, such as http://127.0.0.1:8080.")]
Key = Annotated[str | None, typer.Option(envvar="ISTHMUS_KEY", help="Key of the service with the scope events.")]
File = Annotated[Path, typer.Argument(metavar="FILE", help="File of dead letters.")]


@app.command("consume")
def consume_(
    url: Annotated[
        str,
        typer.Argument(
            metavar="STREAM",
            envvar="ISTHMUS_STREAM",
            help="redis://HOST/0?stream=NAME, nats://HOST?stream=NAME, amqp://HOST/?queue=NAME, kafka://HOST?topic=NAME.",
        ),
    ],
    to: To,
    key: Key = None,
    letters: Annotated[
        Path, typer.Option(metavar="FILE", help="Where messages go that cannot be used after 5 tries.")
    ] = Path("dead-letters.jsonl"),
    idle: Annotated[float, typer.Option(min=0, help="Seconds without a message until it ends; 0 for never.")] = 0.0,
    traces: Annotated[
        str, typer.Option(metavar="URL", help="Where traces go: console, or OTLP over HTTP (http://HOST/v1/traces).")
    ] = "",
    trace_share: Annotated[
        float, typer.Option(min=0, max=1, help="Share traced of the messages that bring no trace of their own.")
    ] = 1.0,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Carry events from a stream to the service; a message is acknowledged when its events are on disk."""
    with needs("stream"):
        from isthmus.service.streams.brokers import open_source
        from isthmus.service.streams.consume import Pace, run
        from isthmus.service.streams.place import place_of
        from isthmus.service.watch.traces import Tracing, traceparent
    place = place_of(url)
    tracing = Tracing(traces, __version__, share=trace_share) if traces else None
    with _client(to, key) as client:

        def send(events: Sequence[Event]) -> Receipt:
            return client.send(events, traceparent=traceparent())

        try:
            counts = run(open_source(place), place.label, send, _letters(letters), Pace(idle), tracing)
        finally:
            if tracing is not None:
                tracing.close()
    if wants_json():
        put_json(asdict(counts))
        return
    say(f"{counts.stored} events stored, {counts.known} known before, {counts.dead} messages dead")


@group.command("list")
def list_(file: File, as_json: Json = False, verbose: Verbose = False) -> None:  # noqa: ARG001
    """List dead letters and what was wrong with each."""
    found = _letters(file).read()
    if wants_json():
        put_json([asdict(letter) for letter in found])
        return
    rows = [(letter.id[:8], letter.when, letter.source, letter.message, letter.error) for letter in found]
    table("dead letters", ("id", "when", "stream", "message", "error"), rows)


@group.command("replay")
def replay_(
    file: File,
    to: To,
    key: Key = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Send dead letters again; those the service takes leave the file."""
    from isthmus.service.streams.intake import replay

    box = _letters(file)
    with _client(to, key) as client:
        sent, left = replay(box, client.send)
    if wants_json():
        put_json({"sent": sent, "left": left})
        return
    say(f"{sent} sent, {left} left")


@group.command("forget")
def forget_(
    file: File,
    person: Annotated[str, typer.Option(metavar="PLATFORM:USER", help="Account that was erased.")],
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Take out the dead letters that name somebody: erasing a person does not reach the file."""
    platform, colon, user = person.partition(":")
    if not (platform and colon and user):
        raise InputError("names no account", where="--person", fix="write it as PLATFORM:USER")
    gone = _letters(file).forget(platform, user)
    if wants_json():
        put_json({"forgotten": gone})
        return
    say(f"{gone} letters taken out")


def _client(to: str, key: str | None) -> Client:
    with needs("service"):
        from isthmus.client import Client
    if not to.startswith(("http://", "https://")):
        raise InputError(f"'{to}' is no address of a service", where="--to", fix="http://HOST:8080")
    return Client(to, key=key, tries=1)


def _letters(file: Path) -> Letters:
    from isthmus.service.streams.letters import Letters

    return Letters(file)
