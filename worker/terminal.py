"""Where commands print, what may be printed, and how."""

from rich.console import Console

#: Columns when the output is no terminal, a log or a file; wide enough for the tables.
_WIDTH_WITHOUT_TERMINAL = 140


def make_console(*, stderr: bool = False) -> Console:
    """A console as wide as its terminal; progress and notes go to standard error, data to standard output."""
    # File names are printed as they are: ":ear:" in one is no picture of an ear.
    console = Console(stderr=stderr, highlight=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH_WITHOUT_TERMINAL
    return console


def printable(text: str, *, lines: bool = False) -> str:
    """Text from outside without what moves a terminal's cursor, rings its bell or turns the reading direction.

    Args:
        text: a name from an archive or a message that may hold one.
        lines: whether line breaks stay.

    Returns:
        The text with a question mark for each letter that cannot be printed.
    """
    return "".join(letter if letter.isprintable() or (lines and letter == "\n") else "?" for letter in text)


def shown_probability(probability: float) -> str:
    """A probability or a threshold with three decimals, or with two digits where those would be noughts."""
    return f"{probability:.3f}" if probability >= 0.01 else f"{probability:.2g}"
