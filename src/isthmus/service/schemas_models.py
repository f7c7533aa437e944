"""What requests and answers about models look like."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)


class CanaryIn(_Body):
    """A model that answers some persons."""

    share: float = Field(gt=0, le=1, examples=[0.1], description="Share of the persons; the same ones every time.")
    errors: float = Field(default=0.02, ge=0, le=1, description="Share of its lists that may fail.")
    seconds: float | None = Field(
        default=None, gt=0, le=60, description="What 99 of 100 lists must keep to; the service's deadline by default."
    )


class ShadowIn(_Body):
    """A model that makes lists for nobody."""

    share: float = Field(default=1.0, gt=0, le=1, examples=[0.2], description="Share of the requests.")


class TrialOut(_Body):
    """A model that is tried from now on, or no more: its share is 0 then."""

    model: str
    model_version: str
    share: float


class CheckOut(_Body):
    """One point that was looked at."""

    name: Literal["finite", "domains", "catalogue", "variety", "ndcg"]
    domain: str
    passed: bool
    said: str
    figures: dict[str, float]


class JudgedOut(_Body):
    """What a model shows beside the one that answers."""

    model: str
    model_version: str
    passed: bool
    reasons: list[str]
    checks: list[CheckOut]


class CanaryOut(_Body):
    """The canary, and how its newest lists did."""

    model: str
    version: str
    share: float
    errors: float
    seconds: float
    lists: int
    failed: int
    late: int
    lists_of_others: int
    late_of_others: int


class ShadowOut(_Body):
    """The shadow, and how it did since the start."""

    model: str
    version: str
    share: float
    lists: int
    failed: int
    overlap: float | None = Field(description="Mean share of the items of a list that it lists too.")


class EndedOut(_Body):
    """A trial that is over."""

    role: Literal["canary", "shadow"]
    model: str
    version: str
    reason: str
    at: int = Field(description="Microseconds since 1970.")


class ModelOut(_Body):
    """A model in the folder of models."""

    name: str
    version: str
    active: bool


class ModelsOut(_Body):
    """Models that can be activated, and those that are tried."""

    active: str
    previous: list[str] = Field(description="What a rollback goes back to, the newest last.")
    models: list[ModelOut]
    canary: CanaryOut | None = None
    shadow: ShadowOut | None = None
    ended: EndedOut | None = Field(default=None, description="The newest trial that is over.")


class ActivatedOut(_Body):
    """The model that answers now."""

    model: str
    model_version: str
