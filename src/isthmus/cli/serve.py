"""The verb serve."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer

from isthmus.cli.extras import needs
from isthmus.cli.show import Bonus, Explore, Json, Verbose
from isthmus.errors import InputError

app = typer.Typer()

Data = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Where events are kept: sqlite:///DIR (default MODEL.service) or postgresql://USER@HOST/DATABASE.",
    ),
]
Folder = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Where --data is a database: folder of keys, audit log and segments; default MODEL.service.",
    ),
]
Seal = Annotated[float, typer.Option(min=0, help="Seconds between two sealed segments; 0 for none.")]
KeepDays = Annotated[float, typer.Option(min=0, help="Days after which events end; 0 for never.")]
Traces = Annotated[
    str, typer.Option(metavar="URL", help="Where traces go: console, or OTLP over HTTP (http://HOST/v1/traces).")
]
TraceShare = Annotated[
    float, typer.Option(min=0, max=1, help="Share traced of the requests that bring no trace of their own.")
]
TokenQuota = Annotated[
    tuple[int, int] | None,
    typer.Option(
        metavar="EVENTS LISTS",
        help="Events to send and lists or explanations to get in a day, for each owner of tokens.",
    ),
]

ModelsDir = Annotated[
    Path | None, typer.Option(metavar="DIR", help="Models that can be activated; default the folder of MODEL.")
]
Tenants = Annotated[
    list[str] | None, typer.Option(metavar="NAME=MODEL", help="A further tenant with its own model and events.")
]
TrustKeys = Annotated[
    list[Path] | None,
    typer.Option(metavar="PEM", help="Public key that must have signed models; may be given several times."),
]
Guesses = Annotated[
    int, typer.Option(min=0, help="Requests without a valid key of one address in a minute; 0 for no limit.")
]
Limits = Annotated[
    str, typer.Option("--limits", metavar="URL", help="Redis in which several processes share --rate and --burst.")
]
Consent = Annotated[
    str, typer.Option(help="required: events serve lists of other platforms if allowed; assumed: unless forbidden.")
]


Approximate = Annotated[
    int,
    typer.Option(
        "--approximate-from",
        metavar="N",
        min=0,
        help="From so many items of a domain on, lists are made from a shortlist; 0: every item is always scored.",
    ),
]


@app.command("serve")
def serve_(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model.")],
    host: Annotated[str, typer.Option(help="Address; one that others can reach needs a key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 8080,
    data: Data = None,
    folder: Folder = None,
    models: ModelsDir = None,
    tenant: Tenants = None,
    trust: TrustKeys = None,
    deadline: Annotated[float, typer.Option(help="Seconds until a cheaper list is given.")] = 0.25,
    header_seconds: Annotated[float, typer.Option(help="Seconds in which a request's headers must arrive.")] = 10.0,
    rate: Annotated[float, typer.Option(min=0, help="Requests a second of one key; 0 for no limit.")] = 0.0,
    burst: Annotated[int, typer.Option(min=1, help="Requests at once of one key.")] = 20,
    guesses: Guesses = 60,
    shared: Limits = "",
    consent: Consent = "required",
    issuer: Annotated[str, typer.Option(metavar="URL", help="Take tokens of this OpenID Connect issuer too.")] = "",
    audience: Annotated[str, typer.Option(metavar="NAME", help="Whom its tokens must be for.")] = "",
    jwks: Annotated[str, typer.Option(metavar="FILE|URL", help="Its keys; default: where the issuer says.")] = "",
    tenant_claim: Annotated[str, typer.Option(metavar="NAME", help="Claim that names the tenant.")] = "",
    platforms_claim: Annotated[str, typer.Option(metavar="NAME", help="Claim that binds to platforms.")] = "",
    token_quota: TokenQuota = None,
    warm: Annotated[bool, typer.Option("--warm/--no-warm", help="Make lists ready in idle time.")] = True,
    approximate_from: Approximate = 100_000,
    explore: Explore = None,
    explore_bonus: Bonus = 0.5,
    seal: Seal = 3600.0,
    keep_days: KeepDays = 0.0,
    console: Annotated[bool, typer.Option("--console/--no-console", help="Show pages for people at /console.")] = True,
    traces: Traces = "",
    trace_share: TraceShare = 1.0,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,
) -> None:
    """Serve lists over HTTP, and take in events that count at once; ends on SIGTERM."""
    with needs("service"):
        from isthmus.config import parse
        from isthmus.service.core import Places
        from isthmus.service.log.base import place_of
        from isthmus.service.run import run
        from isthmus.service.settings import DEFAULT_TENANT, ServiceSettings

    limits = {"deadline": deadline, "rate": rate, "burst": burst, "limits": shared, "warm": warm, "consent": consent}
    kept = {"seal": seal, "keep_days": keep_days, "traces": traces, "trace_share": trace_share, "guesses": guesses}
    claims = {"audience": audience, "jwks": jwks, "tenant_claim": tenant_claim, "platforms_claim": platforms_claim}
    limits |= {"explore": explore, "explore_bonus": explore_bonus, "approximate_from": approximate_from}
    more = {"console": console, "header_seconds": header_seconds, "tokens": _tokens(issuer, claims, token_quota)}
    settings = parse(ServiceSettings, {"host": host, "port": port, **limits, **kept, **more}, where="serve")
    place = place_of(data, folder, model.with_name(model.name + ".service"))
    given = {DEFAULT_TENANT: model, **_tenants(tenant or [])}
    run(Places(place.folder, given, models, tuple(trust or ()), place.database), settings, log_all=verbose)


def _tokens(issuer: str, said: dict[str, str], quota: tuple[int, int] | None) -> dict[str, object] | None:
    """Return whose tokens are taken, None for nobody's."""
    if (any(said.values()) or quota) and not issuer:
        raise InputError("whose tokens are meant is not said", where="--audience", fix="give --issuer too")
    events, lists = quota or (None, None)
    return {"issuer": issuer, **said, "events": events, "lists": lists} if issuer else None


#: Names that no further tenant can have: the first one's, and that of the file of the keys.
TAKEN: Final = ("default", "system")


def _tenants(words: list[str]) -> dict[str, Path]:
    """Return the models of further tenants."""
    found = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not (equals and path and name.isidentifier()) or name in TAKEN:
            fix = f"write NAME=MODEL, NAME of letters and none of {', '.join(TAKEN)}"
            raise InputError(f"'{word}' names no tenant", where="--tenant", fix=fix)
        found[name] = Path(path)
    return found
