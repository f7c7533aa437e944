"""What has to fit together inside one source of a spec: each check returns the problem in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from isthmus.data.spec import Source

#: Kind of source -> columns it must have, columns it may have.
COLUMNS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "events": (("user", "item"), ("platform", "domain", "event", "value", "ts")),
    "items": (
        ("item",),
        (
            "platform",
            "domain",
            "title",
            "text",
            "categories",
            "attributes",
            "image",
            "audio",
            "lang",
            "available_from",
            "available_until",
        ),
    ),
    "users": (("user",), ("platform", "attributes", "key")),
    "identities": (("user",), ("platform", "person", "key", "other_platform", "other_user")),
    "edges": (("head", "tail"), ("relation",)),
    "links": (("item", "entity"), ("platform",)),
    "rules": (("rule", "head", "tail"), ("weight",)),
}


def check_place(source: Source) -> str:
    """Return what is wrong with where the source lies, or an empty text."""
    if source.shape == "sql":
        return "" if source.url and source.query else "an SQL source needs url and query"
    if not source.path:
        return "a source needs a path (or url and query)"
    if source.shape == "sequence" and source.kind != "events":
        return f"a sequence file holds events, not {source.kind}"
    if source.shape == "segments" and source.kind not in ("events", "items"):
        return f"segments hold events and items, not {source.kind}"
    return ""


def check_columns(source: Source) -> str:
    """Return which column is missing or has no meaning for the kind, or an empty text."""
    required, optional = COLUMNS[source.kind]
    mapping = source.mapping
    for name in mapping:
        if name not in (*required, *optional):
            known = ", ".join((*required, *optional))
            return f"columns.{name} has no meaning for kind {source.kind}; it knows {known}"
    for name in source.files:
        if name not in mapping or source.kind != "items":
            return f"files.{name} needs kind items and columns.{name} (which column goes into the name?)"
    missing = [name for name in required if name not in mapping]
    if missing:
        return f"kind {source.kind} needs columns.{missing[0]} (which column holds the {missing[0]}?)"
    return ""


def check_labels(source: Source) -> str:
    """Return which name (platform, relation, event, time) is missing, or an empty text."""
    mapping = source.mapping
    mapped = source.item_maps and all(table.platform for table in source.item_maps)
    if source.kind not in ("edges", "rules") and not (source.platform or "platform" in mapping or mapped):
        return f"kind {source.kind} needs platform (a name) or columns.platform"
    if source.kind == "edges" and not (source.relation or "relation" in mapping):
        return "kind edges needs relation (a name) or columns.relation"
    if source.kind == "events":
        return _check_events(source, mapping)
    if source.kind == "identities" and not {"person", "key", "other_user"} & set(mapping):
        return "kind identities needs columns.person, columns.key or columns.other_user"
    return ""


def _check_events(source: Source, mapping: Mapping[str, tuple[str, ...]]) -> str:
    if source.event is None and "event" not in mapping and source.shape != "rating":
        return 'events need event (for example event = "rate") or columns.event'
    if source.time is not None and source.time.order_only:
        return ""
    if source.shape == "sequence" and "ts" not in mapping:
        return ""
    if "ts" not in mapping:
        return 'events need columns.ts, or time = "order" where the file has an order and no times'
    if source.time is None and source.shape != "segments":
        return 'columns.ts needs time, for example time = { format = "unix_s" }'
    return ""
