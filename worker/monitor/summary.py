"""Jobs on a terminal: the list of jobs, and the summary of one job with its most suspicious images."""

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from db.jobs import JobView
from db.progress import count_images
from db.session import read
from db.status import FailureCode, ImageStatus, JobStatus, TriageFlag
from db.worklist import OutcomeRow, unscored_page, worklist_page
from worker.monitor.job_status import JobReport, clock, describe_job, job_rate
from worker.monitor.stalls import STOPPED
from worker.terminal import printable, shown_probability

_MEANING = {
    TriageFlag.HIGH_RISK: "at or above the threshold: look first",
    TriageFlag.BORDERLINE: "just below the threshold",
    TriageFlag.LOWER_PRIORITY: "look later; it does not mean benign",
}
#: Kinds of files that were not submitted, in the summary.
_SHOWN_KINDS = 8
#: Columns of the job list that hold numbers.
_NUMBERS = ("id", "done", "rate", "left")


def print_job_list(jobs: Sequence[JobReport], console: Console) -> None:
    """Print one line per job, as wide as the console.

    Args:
        jobs: from `worker.monitor.job_status.describe_job`.
        console: to print on.
    """
    columns = {
        "id": [str(job.id) for job in jobs],
        "state": [job.state for job in jobs],
        "done": [f"{_percent_done(job)}%" for job in jobs],
        "rate": [
            ""
            if (rate := job.recent_images_per_second or job.images_per_second) is None or job.stalled
            else f"{rate:,.0f}/s"
            for job in jobs
        ],
        "left": ["" if job.seconds_left is None else clock(job.seconds_left) for job in jobs],
        "submitted (UTC)": [f"{job.submitted_at:%Y-%m-%d %H:%M}" for job in jobs],
    }
    # Each column as wide as its cells, none for a column without any: the source needs the room.
    fixed = [_aligned(title, cells) for title, cells in columns.items() if any(cells)]
    room = max(10, min(console.width, 140) - sum(len(cells[0]) + 2 for cells in fixed))
    rows = zip(*fixed, ["name or source", *(_shown_source(job, room) for job in jobs)], strict=True)
    for number, row in enumerate(rows):
        style = "dim" if number == 0 else None
        console.print("  ".join(row), highlight=False, markup=False, soft_wrap=True, style=style)


def _shown_source(job: JobReport, room: int) -> str:
    if not job.name:
        return _end_of(printable(job.source), room)
    name = printable(job.name)
    return name if len(name) <= room else f"{name[: room - 1]}…"


def _aligned(title: str, cells: Sequence[str]) -> list[str]:
    width = max(map(len, (title, *cells)))
    return [text.rjust(width) if title in _NUMBERS else text.ljust(width) for text in (title, *cells)]


def _percent_done(job: JobReport) -> int:
    # Rounded down: 100% means all.
    return 100 * job.completed // job.submitted if job.submitted else 0


def _end_of(text: str, room: int) -> str:
    """The end of a path, which tells sources apart."""
    return text if len(text) <= room else f"…{text[1 - room :]}"


def print_summary(database: Engine, job: JobView, console: Console, *, cases: int = 10, command: str = "dermq") -> None:
    """Print the outcomes of a job.

    Args:
        database: from `db.session.open_database`.
        job: finished or not.
        console: to print on.
        cases: images in each of the two lists.
        command: how `dermq` is called, for the commands in the text.
    """
    report = describe_job(database, job)
    counts = read(database, lambda connection: count_images(connection, job.id))
    console.print(
        f"[bold]Job {job.id}[/bold] {report.state}: {counts.completed:,} of {counts.submitted:,} images have an outcome"
        f"  [dim]{job_rate(job, counts)}[/dim]",
        highlight=False,
    )
    if job.name or job.submitted_by:
        by = f", submitted by {_escaped(job.submitted_by)}" if job.submitted_by else ""
        console.print(f"{_escaped(job.name or 'Without a name')}{by}", highlight=False)
    bundle = _escaped(f"{job.bundle_name} {job.bundle_version}")
    console.print(f"Bundle {bundle}, policy {job.policy}", highlight=False)
    console.print(
        f"High risk from {shown_probability(job.threshold)}, borderline from "
        f"{shown_probability(job.borderline_threshold)}",
        highlight=False,
    )
    if reason := report.stalled:
        console.print(reason, style="yellow", markup=False, highlight=False)
    table = Table("outcome", "images", "meaning", box=None, pad_edge=False, header_style="dim")
    table.columns[1].justify = "right"
    for flag, meaning in _MEANING.items():
        table.add_row(flag, f"{counts.by_flag.get(flag, 0):,}", meaning)
    ungradable = counts.by_status.get(ImageStatus.UNGRADABLE, 0)
    table.add_row(ImageStatus.UNGRADABLE, f"{ungradable:,}", "poor or no dermoscopy: a human must look")
    for code in FailureCode:
        if number := counts.by_failure.get(code):
            table.add_row(f"failed: {code}", f"{number:,}", "not scored: a human must look")
    if waiting := counts.by_status.get(ImageStatus.WAITING, 0):
        cancelled = job.status is JobStatus.CANCELLED
        meaning = "not scored before the job was cancelled: a human must look" if cancelled else "no outcome yet"
        table.add_row(ImageStatus.WAITING, f"{waiting:,}", meaning)
    table.add_section()
    table.add_row("submitted", f"{counts.submitted:,}", "")
    console.print(table)
    if report.passed_over:
        kinds = [f"{number:,} {printable(kind)}" for kind, number in report.passed_over.items()]
        rest = f" and {len(kinds) - _SHOWN_KINDS} more kinds" if len(kinds) > _SHOWN_KINDS else ""
        text = f"In the source and not submitted: {', '.join(kinds[:_SHOWN_KINDS])}{rest}."
        console.print(text, style="dim", markup=False, highlight=False)
    if counts.reused:
        console.print(
            f"{counts.reused:,} of these images were scored earlier with the same bundle, and not again. `dermq submit "
            "--force` scores them again.",
            style="dim",
            markup=False,
            highlight=False,
        )
    if rows := read(database, lambda connection: worklist_page(connection, job.id, cases)):
        so_far = "" if job.status in STOPPED else " so far"
        console.print(f"\n[bold]Highest probability{so_far}[/bold]")
        console.print(_scored_table(rows, console.width))
        _print_rest(console, job, counts.by_status.get(ImageStatus.SCORED, 0) - len(rows), command)
    if rows := read(database, lambda connection: unscored_page(connection, job.id, cases)):
        console.print("\n[bold]Not scored: a human must look[/bold]")
        _print_reasons(rows, console)
        _print_rest(console, job, ungradable + counts.by_status.get(ImageStatus.FAILED, 0) - len(rows), command)


def _print_rest(console: Console, job: JobView, rest: int, command: str) -> None:
    if rest > 0:
        text = f"… and {rest:,} more: {command} export {job.id} --ranked"
        console.print(text, style="dim", highlight=False, soft_wrap=True)


def _scored_table(rows: list[OutcomeRow], width: int) -> Table:
    table = Table("probability", "flag", "image", box=None, pad_edge=False, header_style="dim")
    # One line each: of a long path, the end tells images apart.
    room = max(20, width - len("probability") - len(TriageFlag.LOWER_PRIORITY) - 4)
    for row in rows:
        probability = "" if row.probability is None else f"{row.probability:.3f}"
        table.add_row(probability, row.flag, _escaped(_end_of(printable(row.path), room)))
    return table


def _print_reasons(rows: list[OutcomeRow], console: Console) -> None:
    """A line with the reason and the image, and below it why."""
    codes = [str(row.failure_code or row.ungradable_reason) for row in rows]
    longest = max(map(len, codes))
    for row, code in zip(rows, codes, strict=True):
        image = _end_of(printable(row.path), max(20, console.width - longest - 2))
        console.print(f"{code:<{longest}}  {image}", markup=False, highlight=False, soft_wrap=True)
        for line in textwrap.wrap(printable(row.reason or ""), console.width - 2):
            console.print(f"  {line}", markup=False, highlight=False, style="dim")


def _escaped(text: str) -> str:
    """A text without control characters, and with brackets escaped, which rich takes for markup."""
    return printable(text).replace("[", "\\[")
