"""``dermq feedback`` and ``dermq audit-performance``: findings come back, and are compared with the flags."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from worker.cli.session import JOB_NUMBER, current_actor, open_checked_database

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from worker.intake.findings import FindingsFile


@click.command(short_help="Record reviewers' findings on a job.")
@click.argument("job", type=JOB_NUMBER)
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--reviewer", help="Who reviewed, where a row does not say. Default: your name in the audit log.")
def feedback(job: int, file: Path, reviewer: str | None) -> None:
    """Record the findings in FILE on images of JOB: the CSV that the worklist page saves, or a table of your own.

    A row has a path or a lesion_id, and finding, diagnosis or comment; optionally reviewer and date. A later finding
    on an image becomes a new version, and none is changed.

    \b
    dermq feedback 7 findings-of-job-7.csv
    dermq feedback 7 histology.xlsx --reviewer "Pathology"
    """
    from db.audit import append_entry
    from db.feedback import record_findings
    from db.session import transact
    from db.status import AuditAction
    from worker.intake.findings import read_findings
    from worker.monitor.job_status import find_job

    database, actor = open_checked_database(), current_actor()
    find_job(database, job)

    def record(connection: "Connection") -> "tuple[FindingsFile, int]":
        found = read_findings(connection, job, file, reviewer or actor)
        versions = record_findings(connection, job, found.findings)
        detail = {"findings": len(found.findings), "versions": versions}
        append_entry(connection, actor=actor, action=AuditAction.REVIEWED, job_id=job, detail=detail)
        return found, versions

    found, versions = transact(database, record)
    same = len(found.findings) - versions
    click.echo(f"{versions:,} findings recorded" + (f", {same:,} were known." if same else "."))
    for note in found.notes():
        click.echo(note, err=True)
    if found.problems:
        sys.exit(1)


@click.command("audit-performance", short_help="Compare flags with the diagnoses that came back.")
@click.argument("jobs", type=JOB_NUMBER, nargs=-1, required=True)
def audit_performance(jobs: tuple[int, ...]) -> None:
    """Compare the flags of JOBS with the diagnoses that `dermq feedback` recorded: sensitivity, specificity, and the
    share of melanomas among high-risk cases, each with its 95% interval, and what they cannot say.

    Exit status 1: there are too few melanomas for a conclusion.
    """
    from db.feedback import reviewed_images
    from db.session import read
    from worker.monitor.job_status import find_job
    from worker.monitor.performance import FEWEST, measure

    database = open_checked_database()
    images = []
    for job in jobs:
        find_job(database, job)
        found = read(database, lambda connection, job=job: list(reviewed_images(connection, job)))  # type: ignore[misc]
        # A lesion of two jobs may be two lesions.
        images += [
            replace(image, lesion_id=f"{job}:{image.lesion_id}") if image.lesion_id else image for image in found
        ]
    result = measure(images)
    click.echo(f"cases with a diagnosis: {result.sensitivity.of + result.specificity.of:,}")
    if result.sensitivity.of >= FEWEST:
        click.echo(f"sensitivity: {result.sensitivity}")
    if result.specificity.of >= FEWEST:
        click.echo(f"specificity: {result.specificity}")
    if result.sensitivity.of >= FEWEST and result.predictive.of:
        click.echo(f"melanomas among high-risk cases: {result.predictive}")
    click.echo(f"with a diagnosis, of high-risk cases: {result.flagged_verified}")
    click.echo(f"with a diagnosis, of other scored cases: {result.others_verified}")
    if result.not_scored:
        click.echo(f"melanomas without a score, which went to a human: {result.not_scored:,}")
    for caveat in result.caveats():
        click.echo(caveat, err=True)
    if result.sensitivity.of < FEWEST:
        sys.exit(1)
