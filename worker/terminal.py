"""Consoles for commands, and texts that are safe to print."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

#: Columns when the output goes to a log or a file. Wide enough for the tables.
_WIDTH_WITHOUT_TERMINAL = 140


def make_console(*, stderr: bool = False) -> Console:
    """A console as wide as its terminal. Progress and notes go to standard error, data to standard output."""
    # Without emoji: a file named ":ear:" is printed as it is.
    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console


@contextmanager
def image_progress(what: str, images: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error; nothing when that is no terminal.

    Args:
        what: shown before the bar.
        images: their number.

    Yields:
        Call it with the number of images done so far.
    """
    console = make_console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=images)
        yield lambda done: bar.update(task, completed=done)


def printable(text: str, *, lines: bool = False) -> str:
    """Replace characters that move a terminal's cursor, ring its bell or reverse the reading direction.

    Args:
        text: comes from outside, such as a file name or a server's answer.
        lines: keep line breaks.

    Returns:
        The text with a question mark for each character that cannot be printed.
    """
    return "".join(letter if letter.isprintable() or (lines and letter == "\n") else "?" for letter in text)


def shown_probability(probability: float) -> str:
    """A probability with three decimals, or with two significant digits below 0.01."""
    return f"{probability:.3f}" if probability >= 0.01 else f"{probability:.2g}"
