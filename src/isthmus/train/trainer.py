"""``transformers.Trainer`` made to take whole batches and to keep nothing on disk by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from tempfile import gettempdir

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerControl, TrainingArguments, get_scheduler
from transformers.trainer_callback import PrinterCallback

from isthmus.errors import TrainingError
from isthmus.rng import generator
from isthmus.train.aids import Adversary, groups
from isthmus.train.callbacks import Pace
from isthmus.train.checkpoints import optimiser_state, restore_optimiser
from isthmus.train.memory import PeakMemory
from isthmus.train.run import Run
from isthmus.train.settings import LoopLog


def go(run: Run, advance: Callable[[int], None]) -> LoopLog:
    """Train to the end, from the newest checkpoint if there is one, and return the log."""
    memory = PeakMemory()
    resume = run.resume()
    if not run.course.stopped:
        advance(run.last or 0)
        pace = Pace(run.plan, save_every=run.settings.save_every, saves=run.checkpoints is not None)
        pace.advance = advance
        pace.after_update = getattr(run.model, "after_update", None)
        try:
            with pace.interruptible():
                WholeBatchTrainer(run, pace).train(resume_from_checkpoint=resume)
        except KeyboardInterrupt:
            run.say_how_to_go_on()
            raise
    averaged = run.finish()
    return run.log(memory.read(), averaged)


class WholeBatchTrainer(Trainer):  # type: ignore[misc]
    """A ``Trainer`` that takes whole batches, checks every step, and keeps nothing on disk by itself."""

    loss_is_scaled_for_ga = False
    optimizer: torch.optim.Optimizer | None
    control: TrainerControl

    def __init__(self, run: Run, pace: Pace) -> None:
        self.run, self.settings = run, run.settings
        self.adversary = Adversary.of(run.model, self.settings.adversarial) if self.settings.adversarial else None
        self.place, self.at = 0, -1
        self.loss_sum: Tensor | float = run.course.loss_sum
        args = TrainingArguments(
            output_dir=str(run.folder or gettempdir()),
            num_train_epochs=1,
            per_device_train_batch_size=1,
            gradient_accumulation_steps=self.settings.accumulation,
            max_grad_norm=self.settings.clip,
            seed=self.settings.seed % 2**32,
            use_cpu=not torch.cuda.is_available(),
            eval_strategy="no",
            save_strategy="no",
            logging_strategy="no",
            logging_nan_inf_filter=False,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            label_names=[],
        )
        args._n_gpu = min(args.n_gpu, 1)
        super().__init__(run.model, args, train_dataset=range(run.plan.batches), callbacks=[pace])
        self.remove_callback(PrinterCallback)

    def get_train_dataloader(self) -> torch.utils.data.DataLoader:
        """Return the batches in their order."""
        batches = self.run.batches
        return torch.utils.data.DataLoader(
            self.train_dataset, batch_size=1, collate_fn=lambda steps: batches.batch(steps[0])
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:  # noqa: ARG002
        """Return AdamW with a group a layer."""
        if self.optimizer is None:
            self.optimizer = torch.optim.AdamW(groups(self.model, self.settings), fused=True)
        return self.optimizer

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """Return warm-up and schedule."""
        kind = "constant_with_warmup" if self.settings.schedule == "constant" else self.settings.schedule
        warm = round(self.settings.warmup * num_training_steps)
        self.lr_scheduler = get_scheduler(kind, optimizer or self.optimizer, warm, num_training_steps)
        return self.lr_scheduler

    def training_step(
        self, model: nn.Module, inputs: dict[str, Tensor], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Go forward and back over one batch, with a generator of its own; twice with an adversary."""
        step = self.state.global_step
        self.place, self.at = (self.place + 1, step) if step == self.at else (0, step)
        seed = int(generator(self.settings.seed, "train", step, self.place).integers(2**63))
        torch.manual_seed(seed)
        if self.adversary:
            self.adversary.start(accumulating=self.settings.accumulation > 1)
        loss = super().training_step(model, inputs, num_items_in_batch)
        if self.adversary:
            torch.manual_seed(seed)
            with self.adversary.pushed():
                super().training_step(model, inputs, num_items_in_batch)
        self.loss_sum = self.loss_sum + loss * self.current_gradient_accumulation_steps
        self.run.course.loss_count += 1
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the loss of a batch, a mean; it has to be finite."""
        with torch.autocast(self.args.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"):
            outputs = model(**inputs)
        loss = outputs["loss"]
        if not self.run.on_gpu and not bool(loss.isfinite()):
            raise self._failure(_named(type(self.model).__name__, outputs))
        return (loss, outputs) if return_outputs else loss

    def _failure(self, what: str) -> TrainingError:
        return self.run.fail(self.state.global_step, what, self._get_learning_rate())

    def _get_grad_norm(self, model: nn.Module, grad_norm: Tensor | None = None) -> Tensor:
        """Check the norm before the weights change by it."""
        if grad_norm is None:
            grad_norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        if not bool(grad_norm.isfinite()):
            raise self._failure("the gradient of the loss is not finite")
        return grad_norm

    def floating_point_ops(self, inputs: Mapping[str, Tensor]) -> int:  # noqa: ARG002
        """Return 0: counting takes time each step."""
        return 0

    def evaluate(self, *_: object, ignore_keys: list[str] | None = None) -> dict[str, float]:  # noqa: ARG002
        """Let the run measure the model."""
        self._settle_loss()
        course = self.run.course
        loss = course.loss_sum / max(course.loss_count, 1)
        self.loss_sum, course.loss_sum, course.loss_count = 0.0, 0.0, 0
        if self.run.evaluated(self.state.global_step, loss):
            self.control.should_training_stop = True
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, {})
        return {}

    def _settle_loss(self) -> None:
        self.run.course.loss_sum = float(self.loss_sum)

    def _save_checkpoint(self, model: nn.Module, trial: object) -> None:  # noqa: ARG002
        self._settle_loss()
        self.run.save(self.state.global_step, optimiser_state(self.model, self.optimizer))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """The run has put the weights back already."""

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Every step has a generator of its own."""

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None and self.run.checkpoints is not None and self.run.last is not None:
            restore_optimiser(self.model, self.optimizer, self.run.checkpoints.optimiser(self.run.last))
            _advance_to(self.lr_scheduler, self.run.last)


def _advance_to(scheduler: torch.optim.lr_scheduler.LambdaLR, step: int) -> None:
    """Set the schedule to a step: the learning rate is a formula of it."""
    scheduler.last_epoch = step
    scheduler._step_count = step + 1
    rates = [base * factor(step) for base, factor in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


def _named(model: str, outputs: Mapping[str, object]) -> str:
    """Return which loss is not finite, in words."""
    bad = [
        f"{name} is {value.item()}"
        for name, value in outputs.items()
        if "loss" in name and isinstance(value, Tensor) and value.numel() == 1 and not bool(value.isfinite())
    ]
    return f"{' and '.join(bad)} ({model})"
