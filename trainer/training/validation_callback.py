"""After each epoch: evaluate on validation, keep the best weights, write the checkpoint."""

import csv
import io
import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from trainer.networks.heads import Classifier
from trainer.run_folder import RunFolder
from trainer.training.checkpoint import Progress, save_checkpoint
from trainer.training.curves import draw_curves
from trainer.training.stages import Stage
from worker.atomic_files import replace_file, write_text

#: Columns of ``history.csv``.
HISTORY = ("epoch", "stage", "learning_rate", "train_loss", "validation_loss", "validation_auc")
#: Seconds after which the curves are drawn again.
_DRAW_EVERY = 30.0

#: Gives loss and AUC of the validation images. No loss if it is not computed on probabilities of melanoma.
EvaluateValidation = Callable[[], tuple[float | None, float]]


class ValidationCallback(keras.callbacks.Callback):  # type: ignore[misc]
    """Keeps the best epoch by validation AUC, or the last one, with the averaged weights if the optimizer averages.

    A kill is harmless at any moment: the weights of a new best epoch go into a file of their own; then the checkpoint
    says that they are the best; only then they replace ``best.weights.h5``. `RunFolder.tidy` does what is missing after
    a kill, or the epoch is trained again.

    Args:
        classifier: is trained.
        stage: of the epochs.
        progress: so far. It is updated.
        folder: of the run.
        evaluate: computes loss and AUC on validation. None without validation images; then the last epoch is kept.
        keep_last: whether every epoch replaces the one before.
        patience: epochs without a better one after which the stage ends. 0 for never.
    """

    def __init__(
        self,
        classifier: Classifier,
        stage: Stage,
        progress: Progress,
        folder: RunFolder,
        *,
        evaluate: EvaluateValidation | None,
        keep_last: bool = False,
        patience: int = 0,
    ) -> None:
        super().__init__()
        self._classifier, self._stage, self._folder = classifier, stage, folder
        self._evaluate, self._patience, self._keep_last = evaluate, patience, keep_last
        self._drawn = time.monotonic()
        self.progress = progress

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        trained, progress = self._classifier.trained, self.progress
        # Copies, because PyTorch returns its own memory, which the next line changes.
        live = [np.array(keras.ops.convert_to_numpy(variable)) for variable in trained.trainable_variables]
        # The moving average, if any, replaces the weights for validation and for keeping.
        trained.optimizer.finalize_variable_values(trained.trainable_variables)
        validation_loss, auc = self._evaluate() if self._evaluate else (None, math.nan)
        better = self._keep_last or auc > progress.best_auc
        progress.epoch = epoch + 1
        if better:
            progress.best_auc, progress.best_epoch = auc, epoch + 1
            with replace_file(self._folder.candidate(epoch + 1)) as unfinished:
                self._classifier.scoring.save_weights(unfinished)
        loss = float((logs or {})["loss"])
        progress.history.append(self._row(loss, validation_loss, auc))
        if epoch + 1 < self._stage.end:
            for variable, value in zip(trained.trainable_variables, live, strict=True):
                variable.assign(value)
        # The last epoch of a stage keeps the average, as Keras does at the end of a fit.
        save_checkpoint(self._folder.checkpoint, trained, progress)
        self._folder.tidy(progress.best_epoch)
        self._report(epoch, loss, auc, better)
        if progress.given_up(self._patience, since=self._stage.first):
            self._folder.log(f"no better epoch in {self._patience}: ended early")
            trained.stop_training = True

    def _row(self, loss: float, validation_loss: float | None, auc: float) -> dict[str, Any]:
        optimizer = self._classifier.trained.optimizer
        return {
            "epoch": self.progress.epoch,
            "stage": self._stage.name,
            "learning_rate": f"{float(keras.ops.convert_to_numpy(optimizer.learning_rate)):.6g}",
            "train_loss": f"{loss:.6f}",
            "validation_loss": "" if validation_loss is None else f"{validation_loss:.6f}",
            "validation_auc": "" if math.isnan(auc) else f"{auc:.6f}",
        }

    def _report(self, epoch: int, loss: float, auc: float, better: bool) -> None:
        # Written from the checkpoint's rows, so that an epoch that was trained twice has one row.
        table = io.StringIO()
        writer = csv.DictWriter(table, HISTORY, lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.progress.history)
        write_text(self._folder.history, table.getvalue())
        self._folder.log(
            f"epoch {epoch + 1} ({self._stage.name}): loss {loss:.4f}"
            + ("" if math.isnan(auc) else f", validation AUC {auc:.4f}")
            + (", the best so far" if better and not self._keep_last else "")
        )
        if time.monotonic() - self._drawn > _DRAW_EVERY:
            draw_curves(self.progress.history, self._folder.curves)
            self._drawn = time.monotonic()
