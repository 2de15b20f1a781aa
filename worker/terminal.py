"""Where commands print."""

from rich.console import Console

#: Columns when the output is no terminal, a log or a file; wide enough for the tables.
_WIDTH_WITHOUT_TERMINAL = 140


def make_console(*, stderr: bool = False) -> Console:
    """A console as wide as its terminal; progress and notes go to standard error, data to standard output."""
    console = Console(stderr=stderr, highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console
