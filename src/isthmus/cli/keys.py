"""The verbs of keys: create, list, revoke; and the audit log."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from isthmus.cli.extras import needs
from isthmus.cli.show import Json, Verbose, put_json, say, table, wants_json
from isthmus.errors import InputError
from isthmus.log import logger

if TYPE_CHECKING:
    from isthmus.service.lock.vault import Vault

app = typer.Typer()
group = typer.Typer(help="Keys of the service.", no_args_is_help=True)
app.add_typer(group, name="keys")

Data = Annotated[str, typer.Option(metavar="URL", help="Data of the service: sqlite:///DIR or its folder.")]


@group.command("create")
def create_(
    data: Data,
    scope: Annotated[
        list[str],
        typer.Option(
            help="recommend, events, items, persons, consents, models, metrics, console or audit; several times."
        ),
    ],
    tenant: Annotated[
        str, typer.Option(metavar="NAME", help="Whose data it opens; * for the figures of all tenants.")
    ] = "default",
    platform: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only people of this platform; may be given several times.")
    ] = None,
    label: Annotated[str, typer.Option(help="What it is for.")] = "",
    days: Annotated[float | None, typer.Option(min=0, help="Days until it expires; default never.")] = None,
    quota_events: Annotated[int | None, typer.Option(min=0, help="Events a day; default no limit.")] = None,
    quota_lists: Annotated[int | None, typer.Option(min=0, help="Lists, explanations a day; default no limit.")] = None,
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Make a key; it is shown this once. From the first one on the service needs one, on this machine too."""
    vault, new = _vault(data, new=True)
    quota = quota_events, quota_lists
    key, text = vault.create(tenant=tenant, scopes=scope, platforms=platform or [], label=label, days=days, quota=quota)
    vault.close()
    if wants_json():
        put_json({"prefix": key.prefix, "key": text})
    else:
        say(text)
    if new:
        logger.warning("%s is new: no service has its data there yet", data)


@group.command("list")
def list_(data: Data, as_json: Json = False, verbose: Verbose = False) -> None:  # noqa: ARG001
    """List the keys, without their secrets."""
    vault, _ = _vault(data)
    keys = vault.known()
    vault.close()
    if wants_json():
        put_json([vars(key) for key in keys])
        return
    rows = [
        (
            key.prefix,
            key.tenant,
            " ".join(key.scopes),
            " ".join(key.platforms) or "all",
            key.label,
            _day(key.expires),
            _day(key.revoked),
        )
        for key in keys
    ]
    table("keys", ("prefix", "tenant", "scopes", "platforms", "label", "expires", "revoked"), rows)


@group.command("revoke")
def revoke_(
    data: Data,
    prefix: Annotated[str, typer.Argument(help="Beginning of the key, as isthmus keys list shows it.")],
    as_json: Json = False,  # noqa: ARG001
    verbose: Verbose = False,  # noqa: ARG001
) -> None:
    """Close a key for good; a running service sees it within a second."""
    vault, _ = _vault(data)
    vault.revoke(prefix)
    vault.close()
    if wants_json():
        put_json({"revoked": prefix})
        return
    say(f"{prefix} is closed")


@group.command("audit")
def audit_(data: Data, as_json: Json = False, verbose: Verbose = False) -> None:  # noqa: ARG001
    """Check the chain of the audit log and show it."""
    vault, _ = _vault(data)
    entries = vault.audit()
    vault.close()
    if wants_json():
        put_json(entries)
        return
    rows = [(_time(one["ts"]), one["tenant"], one["actor"], one["action"], str(one["said"])) for one in entries]
    table("audit log, unbroken", ("when", "tenant", "by", "what", "said"), rows)


def _vault(data: str, *, new: bool = False) -> tuple[Vault, bool]:
    """Return the keys of a service, and whether there were none before; only ``new`` ones may be made."""
    with needs("service"):
        from isthmus.service.lock.vault import FILE, Vault
        from isthmus.service.settings import data_folder
    folder = data_folder(data)
    there = (folder / FILE).is_file()
    if not there and not new:
        raise InputError(
            "no service keeps its data here", where=folder, fix="name its --data, MODEL.service by default"
        )
    return Vault(folder), not there


def _day(seconds: int | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).date().isoformat()


def _time(seconds: object) -> str:
    return datetime.fromtimestamp(float(str(seconds)), UTC).strftime("%Y-%m-%d %H:%M:%S")
