"""Show the progress of a training and the time left: a bar on a terminal, a line for each epoch elsewhere."""

import time
from datetime import timedelta
from types import TracebackType
from typing import Any

import keras
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from trainer.training.stages import Stage

#: Weight of the newest epoch in the expected duration of an epoch.
_NEWEST = 0.5
#: Columns of the text.
_WIDTH_OF_TEXT = 100
#: Columns that the bar takes at least. A narrow terminal cuts off the end of the text, which is the loss.
_NARROWEST_BAR = 10


class TrainingProgress(keras.callbacks.Callback):  # type: ignore[misc]
    """Shows epoch, loss, validation AUC and the time left. A context manager, so that the bar is always removed.

    It runs after `trainer.training.validation_callback.ValidationCallback`, whose figures it shows.

    Args:
        console: where to.
        epochs: of the whole training.
        batches: of an epoch.
        keep_last: whether the last epoch is kept instead of the best. Then the best is not marked.
    """

    def __init__(self, console: Console, *, epochs: int, batches: int, keep_last: bool = False) -> None:
        super().__init__()
        self._console, self._epochs, self._batches = console, epochs, batches
        self._keep_last = keep_last
        self._bar = Progress(
            BarColumn(bar_width=min(40, max(_NARROWEST_BAR, console.width - _WIDTH_OF_TEXT))),
            TextColumn("{task.description}"),
            console=console,
            disable=not console.is_terminal,
            # No thread of its own: the processors are busy, and every batch draws anyway.
            auto_refresh=False,
        )
        self._task = self._bar.add_task("loading", total=epochs * batches)
        self._seconds: float | None = None
        self._stage = ""
        self._history: list[dict[str, Any]] = []
        self._best = float("-inf")
        self._start = time.monotonic()
        #: Seconds until the end of the epoch's first batch.
        self._first = 0.0

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def begin(self, stage: Stage, history: list[dict[str, Any]], best: float) -> None:
        """A stage starts or is resumed.

        Args:
            stage: which.
            history: rows so far; the watch adds to it.
            best: validation AUC so far.
        """
        # An epoch of another stage takes another time.
        self._stage, self._seconds = stage.name, None
        self._history, self._best = history, best

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._start, self._first = time.monotonic(), 0.0
        self._epoch = epoch
        if self._seconds is None:
            self._bar.update(
                self._task,
                description=f"epoch {epoch + 1} of {self._epochs} "
                f"({self._stage}), preparing the first batch: up to a minute",
                refresh=True,
            )

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._first = self._first or time.monotonic() - self._start
        if not self._console.is_terminal:
            return
        done = batch + 1
        text = f"epoch {self._epoch + 1} of {self._epochs} ({self._stage})"
        seconds = self._seconds
        if seconds is None and done > 1:
            seconds = (time.monotonic() - self._start - self._first) / (done - 1) * self._batches
        if seconds is not None:
            text += f", {_clock(seconds * (self._epochs - self._epoch - done / self._batches))} left"
        text += f", batch {done} of {self._batches}"
        if self._history and self._history[-1]["validation_auc"]:
            text += f", validation AUC {float(self._history[-1]['validation_auc']):.4f}"
        if logs:
            text += f", loss {float(logs['loss']):.4f}"
        self._bar.update(self._task, completed=self._epoch * self._batches + done, description=text, refresh=True)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # Including the evaluation on validation, which the callback before this one ran.
        seconds = time.monotonic() - self._start
        if self._seconds is None:
            self._seconds = seconds - self._preparation(seconds)
        else:
            self._seconds = (1 - _NEWEST) * self._seconds + _NEWEST * seconds
        row = self._history[-1]
        found = ""
        # A run that is trained on all images outside test has no validation.
        if row["validation_auc"]:
            auc = float(row["validation_auc"])
            better, self._best = auc > self._best, max(auc, self._best)
            found = f", validation AUC {auc:.4f}" + (", the best so far" if better and not self._keep_last else "")
        left = self._epochs - epoch - 1
        self._console.print(
            f"epoch {epoch + 1} of {self._epochs} ({self._stage}): loss {float(row['train_loss']):.4f}{found}"
            f"; {seconds:.0f} s" + (f", {_clock(self._seconds * left)} left" if left else "")
        )

    def _preparation(self, seconds: float) -> float:
        """Seconds by which a stage's first batch, before which TensorFlow traces the network, took longer."""
        others = self._batches - 1
        return max(0.0, self._first - (seconds - self._first) / others) if others else 0.0


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
