"""Plot the history of a run."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from worker.atomic_files import replace_file

#: Okabe and Ito's blue, vermilion and grey: told apart by the colour-blind too.
_TRAINING, _VALIDATION, _QUIET = "#0072B2", "#D55E00", "#666666"


def draw_curves(history: Sequence[dict[str, Any]], target: Path) -> None:
    """Draw loss and validation AUC by epoch, with the best epoch and the stages marked.

    Args:
        history: rows as in ``history.csv``.
        target: a ``.png`` file, replaced.
    """
    # Here and not above: a training that draws nothing need not load it. A figure without pyplot needs no display.
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    epochs = [int(row["epoch"]) for row in history]
    # A run that is trained on all images outside test has no validation.
    aucs = [float(row["validation_auc"]) for row in history if row["validation_auc"]]
    figure = Figure(figsize=(10 if aucs else 5, 4), dpi=120, layout="constrained")
    losses_axes, *others = figure.subplots(1, 2 if aucs else 1, squeeze=False)[0]

    marker = "o" if len(epochs) < 15 else ""
    losses_axes.plot(epochs, [float(row["train_loss"]) for row in history], _TRAINING, marker=marker, label="training")
    # Seven classes have no validation loss: validation holds melanomas and nevi only.
    if all(row["validation_loss"] for row in history):
        losses = [float(row["validation_loss"]) for row in history]
        losses_axes.plot(epochs, losses, _VALIDATION, marker=marker, label="validation")
        losses_axes.legend(frameon=False)
    # From zero, so that a fall looks as large as it is.
    losses_axes.set_ylim(0, 1.08 * losses_axes.dataLim.ymax)
    losses_axes.set_title("Loss", loc="left")

    for auc_axes in others:
        auc_axes.plot(epochs, aucs, _VALIDATION, marker=marker)
        best = max(range(len(aucs)), key=aucs.__getitem__)
        auc_axes.plot(epochs[best], aucs[best], "*", color=_VALIDATION, markersize=15)
        # In the title, for beside the star it would cross the curve.
        auc_axes.set_title(f"Validation AUC, best {aucs[best]:.4f} in epoch {epochs[best]}", loc="left")

    for axes in (losses_axes, *others):
        axes.set_xlabel("epoch")
        axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
        for before, after in pairwise(history):
            if before["stage"] != after["stage"]:
                axes.axvline(int(before["epoch"]) + 0.5, color=_QUIET, linestyle=":", linewidth=1)
                axes.text(
                    int(before["epoch"]) + 0.6, 0.03, after["stage"], color=_QUIET, transform=axes.get_xaxis_transform()
                )
    with replace_file(target) as unfinished:
        figure.savefig(unfinished)
