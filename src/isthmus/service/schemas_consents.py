"""What requests and answers about consents look like."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from isthmus.service.schemas import ConsentOut, _Body, _Read

#: A platform of the model, or ``*`` for any other one.
Side = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^:]*$")]
#: Things said in one request, at most.
MOST = 1000


class ConsentIn(_Body):
    """What a person says about the use of events of one platform for lists on another; ``*`` is any other one."""

    from_platform: Side = Field(examples=["shop"])
    to_platform: Side = Field(examples=["video"])
    allowed: bool


class ConsentsIn(_Body):
    """What a person says now; what was said before of other pairs goes on to hold."""

    consents: list[ConsentIn] = Field(min_length=1, max_length=MOST)


class UseOut(_Body):
    """Whether events of one platform are used for lists on another."""

    from_platform: str
    to_platform: str
    allowed: bool


class ConsentsOut(_Read):
    """What a person said, in the order in which it counts, and what follows."""

    required: bool = Field(description="Whether the use on another platform needs a consent.")
    consents: list[ConsentOut]
    uses: list[UseOut] = Field(description="Every two platforms.")
