"""Settings given as words, ``KEY=VALUE``: found by their key, and of the type that it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import Field, fields
from typing import Any, ClassVar, Final, Protocol

from isthmus.errors import InputError, nearest

_WORDS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
#: Of the training loop, said in other ways.
ELSEWHERE: Final = ("epochs", "learning_rate", "seed", "track", "name")

Given = dict[str, object]


class Dataclass(Protocol):
    """Any class of settings."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


def keys_of(kind: type[Dataclass], without: Sequence[str] = ()) -> dict[str, str]:
    """Return the keys of settings that a word can say, and the type of each: bool, int, float or str.

    Examples
    --------
    >>> from isthmus.train.settings import LoopSettings
    >>> keys_of(LoopSettings, ELSEWHERE)["warmup"], "track" in keys_of(LoopSettings)
    ('float', False)
    """
    said = {field.name: str(field.type).partition(" | ")[0] for field in fields(kind) if field.name not in without}
    return {key: word for key, word in said.items() if word in ("bool", "int", "float", "str")}


def read_given(words: Sequence[str], kinds: Sequence[Mapping[str, str]]) -> list[Given]:
    """Return what the words say, for each of several kinds of settings; a key belongs to the first kind that has it.

    Parameters
    ----------
    words : sequence of str
        ``KEY=VALUE`` each.
    kinds : sequence of mapping of str to str
        What :func:`keys_of` returns.

    Raises
    ------
    InputError
        An unknown key, or a value of another type.

    Examples
    --------
    >>> read_given(["warmup=0.1", "rank=4"], [{"rank": "int"}, {"warmup": "float"}])
    [{'rank': 4}, {'warmup': 0.1}]
    """
    found: list[Given] = [{} for _ in kinds]
    for word in words:
        key, equals, value = (part.strip() for part in word.partition("="))
        place = next((place for place, kind in enumerate(kinds) if key in kind), None)
        if place is None:
            known = sorted({name for kind in kinds for name in kind})
            raise InputError(f"no setting '{key}'{nearest(key, known)}", where="--set", fix=f"keys: {', '.join(known)}")
        if not equals:
            raise InputError(f"'{word}' gives no value", where="--set", fix=f"write {key}=VALUE")
        found[place][key] = _typed(key, value, kinds[place][key])
    return found


def _typed(key: str, value: str, kind: str) -> object:
    try:
        if kind == "bool":
            return _WORDS[value.lower()]
        return {"int": int, "float": float, "str": str}[kind](value)
    except (KeyError, ValueError):
        wanted = {"bool": "true or false", "int": "a whole number", "float": "a number"}[kind]
        raise InputError(f"'{value}' makes no {key}", where=f"--set {key}", fix=f"take {wanted}") from None
