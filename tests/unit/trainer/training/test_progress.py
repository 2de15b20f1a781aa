"""What is shown while a training runs."""

import io
from typing import Any

import pytest
from rich.console import Console

Row = dict[str, Any]


def row(epoch: int, auc: float) -> Row:
    return {"epoch": epoch, "train_loss": "0.041200", "validation_auc": f"{auc:.6f}"}


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    import trainer.training.progress

    now = [0.0]
    monkeypatch.setattr(trainer.training.progress.time, "monotonic", lambda: now[0])
    return now


def shown_on(console: Console, clock: list[float], *, keep_last: bool = False, tracing: float = 0.0) -> Any:
    from trainer.training.progress import TrainingProgress
    from trainer.training.stages import Stage

    progress = TrainingProgress(console, epochs=4, batches=10, keep_last=keep_last)
    history: list[Row] = []
    with progress:
        progress.begin(Stage(name="fine-tuning", first=0, end=4), history, float("-inf"))
        for epoch, auc in enumerate((0.8, 0.9, 0.85)):
            progress.on_epoch_begin(epoch)
            clock[0] += 0.0 if epoch else tracing
            for batch in range(10):
                clock[0] += 6
                progress.on_train_batch_end(batch, {"loss": 0.05})
            history.append(row(epoch + 1, auc))
            progress.on_epoch_end(epoch)
    return progress


def test_without_a_terminal_each_epoch_is_a_line_with_the_time_left(clock: list[float]) -> None:
    output = io.StringIO()
    shown_on(Console(file=output, width=140, force_terminal=False), clock)
    assert output.getvalue().splitlines() == [
        "epoch 1 of 4 (fine-tuning): loss 0.0412, validation AUC 0.8000, the best so far; 60 s, 0:03:00 left",
        "epoch 2 of 4 (fine-tuning): loss 0.0412, validation AUC 0.9000, the best so far; 60 s, 0:02:00 left",
        "epoch 3 of 4 (fine-tuning): loss 0.0412, validation AUC 0.8500; 60 s, 0:01:00 left",
    ]


def test_the_best_epoch_is_not_pointed_out_where_the_last_is_kept(clock: list[float]) -> None:
    output = io.StringIO()
    shown_on(Console(file=output, width=140, force_terminal=False), clock, keep_last=True)
    assert len(output.getvalue().splitlines()) == 3
    assert "best" not in output.getvalue()


def test_on_a_terminal_a_bar_says_where_it_is_and_how_long_it_takes(clock: list[float]) -> None:
    output = io.StringIO()
    shown_on(Console(file=output, width=160, force_terminal=True), clock)
    text = output.getvalue()
    assert "epoch 1 of 4 (fine-tuning), preparing the first batch: up to a minute" in text
    # Half of the first epoch took 30 s, so three and a half are left.
    assert "epoch 1 of 4 (fine-tuning), 0:03:30 left, batch 5 of 10, loss 0.0500" in text
    assert "0:01:30 left, batch 5 of 10, validation AUC 0.9000, loss 0.0500" in text


@pytest.mark.parametrize("width", [80, 100, 120])
def test_time_left_and_bar_are_seen_on_a_narrow_terminal_too(clock: list[float], width: int) -> None:
    output = io.StringIO()
    shown_on(Console(file=output, width=width, force_terminal=True), clock)
    text = output.getvalue()
    assert "epoch 2 of 4 (fine-tuning), 0:02:30 left, batch 5 of 10" in text
    assert "━" * 10 in text


def test_the_preparation_of_the_first_batch_is_not_counted_for_all_epochs(clock: list[float]) -> None:
    terminal, file = io.StringIO(), io.StringIO()
    shown_on(Console(file=terminal, width=160, force_terminal=True), clock, tracing=40)
    assert "left, batch 1 of 10, loss 0.0500" not in terminal.getvalue(), (
        "there is nothing yet to tell the time left by"
    )
    assert "epoch 1 of 4 (fine-tuning), 0:03:30 left, batch 5 of 10, loss 0.0500" in terminal.getvalue()
    shown_on(Console(file=file, width=140, force_terminal=False), clock, tracing=40)
    assert "the best so far; 100 s, 0:03:00 left" in file.getvalue().splitlines()[0]
