"""Commands that check: `check` the system, `reconcile` a job."""

import sys

import click

from worker.cli.session import JOB_NUMBER, open_checked_database
from worker.settings import load_settings
from worker.terminal import image_progress, printable


@click.command(short_help="Check bundle, database, broker, workers and sweeper.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document; docs/operations.md has its schema.")
def check(as_json: bool) -> None:
    """Check the bundle, the database, the broker, the workers and the sweeper, and say what to do.

    Exit status 1: a check failed.
    """
    from worker.monitor.health import CheckReport, run_checks

    results = []
    for result in run_checks(load_settings()):
        results.append(result)
        if not as_json:
            word = "ok" if result.ok else "FAIL" if result.checked else "?"
            click.echo(f"{word:<4}  {result.component:<9} {printable(result.text)}")
    report = CheckReport(ok=all(result.ok for result in results), checks=results)
    if as_json:
        click.echo(report.model_dump_json(indent=2))
    sys.exit(0 if report.ok else 1)


@click.command(short_help="Check that every image of a job was counted once.")
@click.argument("job", type=JOB_NUMBER)
def reconcile(job: int) -> None:
    """Check that every submitted image of JOB was counted exactly once, and that its rows are consistent.

    Exit status 1: an inconsistency was found, or images are still waiting in a job that was not cancelled.
    """
    from db.progress import count_jobs
    from db.reconciliation import find_inconsistencies
    from db.session import read
    from db.status import JobStatus
    from worker.monitor.job_status import find_job, outcome_counts

    database = open_checked_database()
    found = find_job(database, job)
    counts = read(database, lambda connection: count_jobs(connection, [job]))[job]
    with image_progress(f"checking job {job}", counts.submitted) as shown:
        inconsistencies = read(database, lambda connection: find_inconsistencies(connection, job, shown))
    waiting = counts.submitted - counts.completed
    click.echo(
        f"Job {job} {found.status}: {counts.submitted:,} submitted = {outcome_counts(counts)}, {waiting:,} waiting"
    )
    for inconsistency in inconsistencies:
        click.echo(f"FAIL  {inconsistency}")
    if inconsistencies:
        sys.exit(1)
    cancelled = found.status is JobStatus.CANCELLED
    if waiting and not cancelled:
        click.echo(f"open  {waiting:,} images are waiting. Nothing is wrong so far; ask again when the job is finished")
        sys.exit(1)
    click.echo("ok    every image was counted once" + (f"; {waiting:,} images were cancelled" if waiting else ""))
