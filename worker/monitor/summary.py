"""What became of a job, for a terminal: counts per outcome, the worst cases first, and what a human must look at."""

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine

from db.jobs import JobView
from db.progress import count_images
from db.session import read
from db.status import FailureCode, ImageStatus, JobStatus, TriageFlag
from db.worklist import OutcomeRow, not_judged, worst_first
from worker.monitor.job_status import job_rate, why_it_stands
from worker.terminal import printable, shown_probability

_MEANING = {
    TriageFlag.HIGH_RISK: "at or above the threshold: look at these first",
    TriageFlag.BORDERLINE: "just below the threshold",
    TriageFlag.LOW_RISK: 'lower priority, never "benign"',
}


def print_summary(database: Engine, job: JobView, console: Console, *, cases: int = 10, command: str = "dermq") -> None:
    """Print what became of a job.

    Args:
        database: from `db.session.open_database`.
        job: to summarise, finished or not.
        console: to print on.
        cases: lines in each of the two lists of images.
    """
    counts = read(database, lambda connection: count_images(connection, job.id))
    console.print(
        f"[bold]Job {job.id}[/bold] {job.status}: {counts.ended:,} of {counts.submitted:,} images ended"
        f"  [dim]{job_rate(job, counts)}[/dim]",
        highlight=False,
    )
    console.print(
        f"Bundle {job.bundle_name} {job.bundle_version}, policy {job.policy}: high risk from "
        f"{shown_probability(job.threshold)}, borderline from {shown_probability(job.borderline_from)}",
        highlight=False,
    )
    if why := why_it_stands(database, job):
        console.print(why, style="yellow", markup=False, highlight=False)
    table = Table("outcome", "images", "what it means", box=None, pad_edge=False, header_style="dim")
    table.columns[1].justify = "right"
    for flag, meaning in _MEANING.items():
        table.add_row(flag, f"{counts.by_flag.get(flag, 0):,}", meaning)
    ungradable = counts.by_status.get(ImageStatus.UNGRADABLE, 0)
    table.add_row(ImageStatus.UNGRADABLE, f"{ungradable:,}", "too poor to judge, or no dermoscopy: a human must look")
    for code in FailureCode:
        if number := counts.by_failure.get(code):
            table.add_row(f"failed: {code}", f"{number:,}", "not scored: a human must look")
    if waiting := counts.by_status.get(ImageStatus.WAITING, 0):
        given_up = job.status is JobStatus.CANCELLED
        meaning = "cancelled before they were looked at: a human must look" if given_up else "not looked at yet"
        table.add_row(ImageStatus.WAITING, f"{waiting:,}", meaning)
    table.add_section()
    table.add_row("submitted", f"{counts.submitted:,}", "")
    console.print(table)
    if counts.reused:
        console.print(
            f"Taken over from the same bytes, scored before under this bundle: {counts.reused:,} of the scores; "
            "`dermq submit --force` scores anew.",
            style="dim",
            markup=False,
            highlight=False,
        )
    worst = read(database, lambda connection: worst_first(connection, job.id, cases))
    if worst:
        console.print("\n[bold]Worst cases first[/bold]")
        console.print(_cases(worst))
        _print_rest(console, job, counts.by_status.get(ImageStatus.SCORED, 0) - len(worst), command)
    if stopped := read(database, lambda connection: not_judged(connection, job.id, cases)):
        console.print("\n[bold]Not judged, for a human[/bold]")
        console.print(_reasons(stopped))
        _print_rest(console, job, ungradable + counts.by_status.get(ImageStatus.FAILED, 0) - len(stopped), command)


def _print_rest(console: Console, job: JobView, rest: int, command: str) -> None:
    if rest > 0:
        text = f"… and {rest:,} more: {command} export {job.id} --ranked"
        console.print(text, style="dim", highlight=False, soft_wrap=True)


def _cases(rows: list[OutcomeRow]) -> Table:
    table = Table("probability", "flag", "image", box=None, pad_edge=False, header_style="dim")
    for row in rows:
        probability = "" if row.probability is None else shown_probability(row.probability)
        table.add_row(probability, row.flag, _shown(row.path))
    return table


def _reasons(rows: list[OutcomeRow]) -> Table:
    table = Table("reason", "image", "why", box=None, pad_edge=False, header_style="dim")
    for row in rows:
        table.add_row(row.failure_code or row.ungradable_reason, _shown(row.path), row.reason)
    return table


def _shown(path: str) -> str:
    """A path without the brackets that the terminal library takes for markup, nor control characters."""
    return printable(path).replace("[", "\\[")
