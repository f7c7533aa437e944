"""Loading a model beside one that answers, and letting the old one go, without halting requests."""

from __future__ import annotations

import gc
import sys
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from isthmus.service.lists.live import Live

#: Entries that are freed together, and seconds between two such steps.
STEP: Final = 500
PAUSE: Final = 0.001
#: Seconds between two looks whether a model is still in use, and after which it is left to those who use it.
LOOK: Final = 0.2
#: Seconds a thread may go on while another one waits for its turn, while a model is loaded and as Python has it: a
#: request takes a few turns, and the usual ones would add up. Always short, they cost a seventh of all requests.
TURN: Final = 0.0001
USUAL: Final = 0.005
PATIENCE: Final = 600.0
#: When the garbage collector makes its rounds, as Python has it; and never through all objects.
ROUNDS: Final = gc.get_threshold()
YOUNG: Final = (*ROUNDS[:2], 2**30)


class Mapped(Protocol):
    """A mapping, as far as it is emptied."""

    def __len__(self) -> int: ...
    def popitem(self) -> object: ...  # noqa: D102


Emptied = Mapped | list[str]


@contextmanager
def beside_requests() -> Iterator[None]:
    """Load much without halting requests: short turns of the threads, and garbage is looked for among new objects only.

    A round through all objects would halt requests for long; without any, garbage of requests would grow meanwhile.
    """
    turn = max(sys.getswitchinterval(), USUAL)
    gc.set_threshold(*YOUNG)
    sys.setswitchinterval(TURN)
    try:
        yield
    finally:
        sys.setswitchinterval(turn)
        gc.set_threshold(*ROUNDS)


def freeze() -> None:
    """Take what was loaded out of the garbage collector's rounds; new garbage first, which would stay for good."""
    gc.collect(1)
    gc.freeze()


def free(held: Emptied) -> None:
    """Empty what nobody uses any longer, a little at a time, in a thread."""
    if len(held):
        threading.Thread(target=_empty, args=([held],), name="free", daemon=True).start()


def free_model(live: Live) -> None:
    """Free what a model knew of accounts and items as soon as nobody uses it: at once it would halt requests.

    Models with fewer items that it went on from share what is freed; like it, they hold the state.
    """
    shelf, state = live.shelf, live.state
    owners: list[object] = [state, shelf]
    held: list[Emptied] = [state.accounts, state.aliases, state.linked, shelf.names.rows, shelf.ids, shelf.platforms]
    threading.Thread(target=_wait, args=(weakref.ref(live), owners, held), name="free", daemon=True).start()


def _wait(gone: weakref.ref[Live], owners: list[object], held: Sequence[Emptied]) -> None:
    until = time.monotonic() + PATIENCE
    while gone() is not None or any(sys.getrefcount(owners[n]) > 2 for n in range(len(owners))):  # here, and the call
        if time.monotonic() > until:
            return
        time.sleep(LOOK)
    _empty(held)


def _empty(held: Sequence[Emptied]) -> None:
    for one in held:
        while len(one):
            if isinstance(one, list):
                del one[-STEP:]
            else:
                for _ in range(min(STEP, len(one))):
                    one.popitem()
            time.sleep(PAUSE)
