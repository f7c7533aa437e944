"""Typed configuration: TOML in, a validated model out, and an error that names the key and the nearest known one."""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from isthmus.errors import SpecError, nearest


class Settings(BaseModel):
    """Base of every configuration model: unknown keys are errors, values are frozen."""

    model_config = ConfigDict(extra="forbid", frozen=True)


S = TypeVar("S", bound=Settings)


def read_toml(path: Path) -> dict[str, object]:
    """Return the content of a TOML file (UTF-8, a byte-order mark is allowed)."""
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise SpecError("no such file", where=path, fix="check the path") from None
    except IsADirectoryError:
        raise SpecError("is a folder, not a TOML file", where=path, fix="name the SPEC.toml inside it") from None
    except UnicodeDecodeError as error:
        raise SpecError(f"is not UTF-8 text (byte {error.start})", where=path, fix="save it as UTF-8") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SpecError(f"is not valid TOML: {error}", where=path) from error


def parse(model: type[S], content: object, *, where: object) -> S:
    """Return ``content`` as ``model``; the first problem becomes a :class:`SpecError`."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise _explain(error, model, where) from None


def _explain(error: ValidationError, model: type[BaseModel], where: object) -> SpecError:
    problems = error.errors()
    first = next((problem for problem in problems if problem["type"] == "extra_forbidden"), problems[0])
    location = [str(part) for part in first["loc"]]
    key = ".".join(location)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if first["type"] == "extra_forbidden":
        known = _known_keys(model, first["loc"][:-1])
        hint = nearest(location[-1], known)
        return SpecError(f"unknown key '{key}'{hint}{more}", where=where, fix=f"known keys: {', '.join(known)}")
    if first["type"] == "missing":
        return SpecError(f"missing key '{key}'{more}", where=where, fix=f"add '{location[-1]}'")
    message = first["msg"].removeprefix("Value error, ")
    return SpecError(f"key '{key}': {message}{more}", where=where)


def _known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    """Return the keys allowed at ``path`` inside ``model``, aliases first."""
    for part in path:
        if isinstance(part, int):
            continue
        fields = {(field.alias or name): field for name, field in model.model_fields.items()}
        if part not in fields:
            return []
        inner = _inner_model(fields[part].annotation)
        if inner is None:
            return []
        model = inner
    return sorted((field.alias or name) for name, field in model.model_fields.items())


def _inner_model(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in getattr(annotation, "__args__", ()):
        found = _inner_model(argument)
        if found is not None:
            return found
    return None


def expand(text: str, *, where: object) -> str:
    """Return ``text`` with ``${NAME}`` and ``${NAME:-default}`` replaced by environment variables.

    Examples
    --------
    >>> expand("${ISTHMUS_NO_SUCH_VARIABLE:-../data}/ratings.csv", where="SPEC.toml")
    '../data/ratings.csv'
    """

    def value(match: re.Match[str]) -> str:
        name, default = match["name"], match["default"]
        found = os.environ.get(name, default)
        if found is None:
            raise SpecError(
                f"environment variable {name} is not set", where=where, fix=f"set it, or write ${{{name}:-default}}"
            )
        return found

    return re.sub(r"\$\{(?P<name>\w+)(?::-(?P<default>[^}]*))?\}", value, text)
