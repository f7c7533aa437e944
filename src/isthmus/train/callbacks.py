"""When to evaluate, save and stop: callbacks of the training loop."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from transformers import TrainerCallback, TrainerControl, TrainerState

from isthmus.log import Advance
from isthmus.train.settings import LoopSettings


@dataclass(frozen=True)
class Plan:
    """Steps of a run.

    Parameters
    ----------
    batches : int
        Batches gone through.
    steps : int
        Updates of the weights.
    ends : frozenset of int
        Updates after which an epoch ends, and the last one: evaluations.

    Examples
    --------
    >>> plan = Plan.of(10, LoopSettings(epochs=2.5, accumulation=4))
    >>> plan.batches, plan.steps, sorted(plan.ends)
    (25, 7, [3, 5, 7])
    """

    batches: int
    steps: int
    ends: frozenset[int]

    @classmethod
    def of(cls, per_epoch: int, settings: LoopSettings) -> Plan:
        """Return the plan for so many batches an epoch."""
        n = settings.accumulation
        batches = settings.steps * n if settings.steps else max(1, round(settings.epochs * per_epoch))
        steps = math.ceil(batches / n)
        ends = {math.ceil(e * per_epoch / n) for e in range(1, batches // per_epoch + 1)}
        return cls(batches, steps, frozenset(ends | {steps}))


class Pace(TrainerCallback):  # type: ignore[misc]
    """Asks for an evaluation after each epoch, for checkpoints after those and every so many seconds."""

    def __init__(self, plan: Plan, *, save_every: float, saves: bool) -> None:
        self.plan, self.save_every, self.saves = plan, save_every, saves
        self.advance: Advance = lambda _: None
        self.after_update: Callable[[int, int], object] | None = None
        self.saved = time.monotonic()
        self.interrupted = False

    def _updated(self, args: object, state: TrainerState, control: TrainerControl, **_: object) -> None:  # noqa: ARG002
        """Tell the model, while its gradients are still there."""
        if self.after_update is not None:
            self.after_update(state.global_step + 1, self.plan.steps)

    on_optimizer_step = _updated

    def _step_ended(self, args: object, state: TrainerState, control: TrainerControl, **_: object) -> None:  # noqa: ARG002
        """Set what is due after a step."""
        self.advance(1)
        step = state.global_step
        control.should_evaluate = step in self.plan.ends
        due = control.should_evaluate or self.interrupted or time.monotonic() - self.saved >= self.save_every
        control.should_save = self.saves and due and step < self.plan.steps
        if control.should_save:
            self.saved = time.monotonic()
        if self.interrupted:
            control.should_training_stop = True

    on_step_end = _step_ended

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Finish the step and save at the first Ctrl-C, where checkpoints are kept; a second one stops at once.

        Raises
        ------
        KeyboardInterrupt
            After the checkpoint was written.
        """
        if not self.saves or threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.getsignal(signal.SIGINT)

        def note(_signal: int, _frame: FrameType | None) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, before)

        signal.signal(signal.SIGINT, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
        if self.interrupted:
            raise KeyboardInterrupt
