"""The parts of a report page: sections of paragraphs, tables, figures and pictures."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from worker.inference.metrics import Estimate

#: Stands where a figure could not be computed.
NONE = "-"


@dataclass(frozen=True, kw_only=True)
class Paragraph:
    """Plain text. ``kind`` is "" or "warning"."""

    text: str
    kind: str = ""
    block: str = "paragraph"


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table. The first cell of a row is its header.

    Args:
        caption: what it shows.
        head: names of the columns.
        rows: cells. Numbers are right-aligned.
        note: below it.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    block: str = "table"


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A figure.

    Args:
        source: ``data:`` address of the image.
        alternative: a description with the main numbers, for readers who do not see it.
        caption: below it.
    """

    source: str
    alternative: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class Plots:
    """Figures side by side."""

    plots: Sequence[Plot]
    block: str = "plots"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A lesion's picture (or "") and what is known of it."""

    picture: str
    alternative: str
    title: str
    lines: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Cases:
    """Pictures side by side."""

    cases: Sequence[Case]
    block: str = "cases"


@dataclass(frozen=True, kw_only=True)
class Flow:
    """A flow diagram as nested boxes of text: everyone, those left out, those kept, the sides of the split."""

    all: str
    left_out: Sequence[str]
    kept: str
    sides: Sequence[Sequence[str]]
    block: str = "flow"


Block = Paragraph | Table | Plots | Cases | Flow


@dataclass(frozen=True, kw_only=True)
class Section:
    """A numbered part of the report."""

    name: str
    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, kw_only=True)
class Key:
    """One of the figures at the top."""

    label: str
    value: str
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Document:
    """A page."""

    title: str
    subtitle: str
    warning: str
    keys: Sequence[Key]
    sections: Sequence[Section]
    footer: Sequence[str] = field(default_factory=list)


def number(value: float | None, digits: int = 3) -> str:
    """A figure, or a dash for none."""
    return NONE if value is None else f"{value:.{digits}f}"


def percent(value: float | None, digits: int = 1) -> str:
    """A share as a percentage, or a dash for none. 100 only if it is all."""
    if value is None:
        return NONE
    shown = f"{100 * value:.{digits}f}%"
    return percent_at_least(value, digits) if value < 1 and float(shown[:-1]) == 100 else shown


def percent_at_least(value: float, digits: int = 1) -> str:
    """A proven share as a percentage, rounded down: the rounded share is proven too."""
    # The small number keeps a whole step from being rounded down for its last binary digit.
    steps = math.floor(100 * value * 10**digits + 1e-9)
    return f"{steps / 10**digits:.{digits}f}%"


def signed_interval(estimate: Estimate) -> str:
    """A difference with its sign and interval: ``+0.0010 (+0.0003 to +0.0016)``."""
    ends = "" if estimate.low is None or estimate.high is None else f" ({estimate.low:+.4f} to {estimate.high:+.4f})"
    return f"{estimate.or_nan:+.4f}{ends}"


def interval(estimate: Estimate | None, digits: int = 3) -> str:
    """An estimate with its 95% interval: ``0.926 (0.904 to 0.947)``."""
    if estimate is None or estimate.value is None:
        return NONE
    if estimate.low is None:
        return number(estimate.value, digits)
    return f"{number(estimate.value, digits)} ({number(estimate.low, digits)} to {number(estimate.high, digits)})"


def percent_interval(estimate: Estimate | None, digits: int = 1) -> str:
    """A share with its 95% interval: ``88.5% (82.6 to 93.9)``."""
    if estimate is None or estimate.value is None:
        return NONE
    if estimate.low is None or estimate.high is None:
        return percent(estimate.value, digits)
    low, high = (f"{100 * end:.{digits}f}" for end in (estimate.low, estimate.high))
    return f"{percent(estimate.value, digits)} ({low} to {high})"


def counted(count: int, singular: str, plural: str | None = None) -> str:
    """``1 lesion``, ``1,204 lesions``."""
    return f"{count:,} {singular if count == 1 else plural or singular + 's'}"
