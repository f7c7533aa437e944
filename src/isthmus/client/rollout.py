"""The part of the client that tries models beside the one that answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast
from urllib.parse import quote

from isthmus.client.answers import Judged

Json = dict[str, object]
#: Sends a method, a path and a body; returns the answer.
Ask = Callable[[str, str, Json | None], Json]


class Rollout:
    """Operations on models; made by :attr:`~isthmus.client.client.Client.rollout`.

    Parameters
    ----------
    ask : callable
        Sends a request.

    Examples
    --------
    >>> asked = []
    >>> def ask(method, path, body):
    ...     asked.append((method, path, body))
    ...     return {"share": 0.1, "model": "new", "passed": True, "reasons": []}
    >>> rollout = Rollout(ask)
    >>> rollout.canary("new", 0.1)
    0.1
    >>> rollout.promote("new").passed, asked[-1]
    (True, ('POST', '/v1/models/new/promote?force=false', None))
    """

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def models(self) -> Json:
        """Return which models there are, which answers, and which are tried."""
        return self._ask("GET", "/v1/models", None)

    def activate(self, model: str) -> str:
        """Let another model answer, without the gate; return its version."""
        return str(self._ask("POST", _path(model, "activate"), None)["model_version"])

    def rollback(self) -> str:
        """Let the model before answer again; return its name."""
        return str(self._ask("POST", "/v1/models/rollback", None)["model"])

    def shadow(self, model: str, share: float = 1.0) -> float:
        """Let a model make a share of the lists too, for nobody; return the share."""
        return cast("float", self._ask("POST", _path(model, "shadow"), {"share": share})["share"])

    def canary(self, model: str, share: float, *, errors: float | None = None, seconds: float | None = None) -> float:
        """Let a model answer a share of the persons; return the share.

        Parameters
        ----------
        model : str
            Which.
        share : float
            Above 0, at most 1.
        errors : float, optional
            Share of its lists that may fail.
        seconds : float, optional
            What 99 of 100 of its lists must keep to.
        """
        said = {"share": share, "errors": errors, "seconds": seconds}
        body: Json = {name: value for name, value in said.items() if value is not None}
        return cast("float", self._ask("POST", _path(model, "canary"), body)["share"])

    def end(self, model: str, role: str) -> None:
        """Try a model no more as ``canary`` or ``shadow``."""
        self._ask("DELETE", _path(model, role), None)

    def check(self, model: str) -> Judged:
        """Return what a model shows beside the one that answers; nothing changes."""
        return _judged(self._ask("POST", _path(model, "check"), None))

    def promote(self, model: str, *, force: bool = False) -> Judged:
        """Let a model answer everybody if it passes the gate, or if ``force`` is given.

        Raises
        ------
        ServiceError
            It does not pass: status 409, with what speaks against it.
        """
        return _judged(self._ask("POST", f"{_path(model, 'promote')}?force={str(force).lower()}", None))


def _path(model: str, what: str) -> str:
    return f"/v1/models/{quote(model, safe='')}/{what}"


def _judged(said: Json) -> Judged:
    return Judged(str(said["model"]), bool(said["passed"]), tuple(cast("list[str]", said["reasons"])))
