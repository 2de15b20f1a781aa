"""``dermq report``: the worklist as a page with pictures."""

from pathlib import Path

import click

from db.status import AuditAction, JobStatus
from worker.cli.session import JOB_NUMBER, current_actor, open_checked_database, tidied_when_ended
from worker.errors import DermqError, OutputError
from worker.settings import load_settings
from worker.terminal import make_console

#: Cases with pictures; beyond, the CSV export serves better.
_MOST = 10_000
#: Thumbnails that the page itself holds. More lie in a folder beside it.
_EMBEDDED = 400


@click.command(short_help="Write the worklist of a job as a page with pictures.")
@click.argument("job", type=JOB_NUMBER)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="Default: worklist-JOB.html in this folder."
)
@click.option("--top", type=click.IntRange(1, _MOST), default=_MOST, show_default=True, help="Cases, from the first.")
@click.option("--with-references", is_flag=True, help="Show patient references. The audit log says so.")
def report(job: int, output: Path | None, top: int, with_references: bool) -> None:
    """Write the worklist of JOB as one HTML page that opens offline: cases by lesion, the most suspicious first.

    \b
    dermq report 7
    dermq report 7 --top 50 -o first-fifty.html

    Its pictures are small copies, read from the archive now; above 400 they lie in a folder beside the page. Move both
    together. Findings and comments stay in the reader's browser until they are saved as CSV there.
    """
    from datetime import UTC, datetime

    from db.audit import append_entry
    from db.session import read, transact
    from db.worklist import evidence_of, outcomes_ranked, references_of
    from worker.atomic_files import replace_file
    from worker.images.read_any import reader_of
    from worker.inference.bundle import load_bundle
    from worker.monitor.job_status import describe_job, find_job
    from worker.output.thumbnails import embedded, in_folder, make_thumbnail
    from worker.output.worklist_cases import make_worklist
    from worker.output.worklist_html import PageOptions, policy_figures, write_worklist_page

    settings, database, console = load_settings(), open_checked_database(), make_console(stderr=True)
    view = find_job(database, job)
    if view.status is JobStatus.DELETING:
        raise DermqError(f"Job {job} is being deleted, so it has no worklist any more.")
    target = (output or Path(f"worklist-{job}.html")).resolve()
    if not target.parent.is_dir():
        raise OutputError(f"There is no folder {target.parent} to write into. Make it, or name another file.")
    cancelled = view.status is JobStatus.CANCELLED
    worklist = read(
        database, lambda connection: make_worklist(outcomes_ranked(connection, job), most=top, cancelled=cancelled)
    )
    shown = [row for case in worklist.cases for row in case.images] + worklist.not_scored
    # Before the first picture is read: whoever stops half way has seen some all the same.
    detail = {"images": len(shown), "page": True, "references": with_references}
    transact(
        database,
        lambda connection: append_entry(
            connection, actor=current_actor(), action=AuditAction.EXPORTED, job_id=job, detail=detail
        ),
    )
    reader, thumbnails = reader_of(view.root), {}
    with console.status("reading pictures …") as status:
        for number, row in enumerate(shown, 1):
            data = make_thumbnail(reader, row.path, row.image_sha256, settings.max_file_bytes)
            if data is not None:
                thumbnails[row.image_id] = data
            if number % 50 == 0:
                status.update(f"reading pictures … {number:,} of {len(shown):,}")
    references = None
    if with_references:
        ids = [row.image_id for row in shown]
        references = read(database, lambda connection: references_of(connection, ids))
    scored_ids = [row.image_id for case in worklist.cases for row in case.images]
    evidence = read(database, lambda connection: evidence_of(connection, scored_ids))
    bundle = load_bundle(settings.resolved_bundle())
    same = bundle.sha256 == view.bundle_sha256
    figures = policy_figures(bundle, view.policy, view.threshold) if same else None
    few = len(thumbnails) <= _EMBEDDED
    try:
        options = PageOptions(
            thumbnail=embedded(thumbnails) if few else in_folder(thumbnails, target.with_suffix(".pictures")),
            references=references,
            # Where a map lies is known of this bundle only.
            evidence=evidence if same else {},
            fit=bundle.manifest.input.fit,
            made_at=datetime.now(UTC),
            state=describe_job(database, view).state,
        )
        with tidied_when_ended(), replace_file(target) as unfinished:
            # It holds pictures of patients.
            unfinished.touch(mode=0o600)
            with unfinished.open("w", encoding="utf-8") as file:
                write_worklist_page(worklist, view, figures, options, file)
    except OSError as error:
        raise OutputError(f"{target} could not be written: {error.strerror}. Name another file with -o.") from None
    gone = len(shown) - len(thumbnails)
    console.print(
        f"{len(worklist.cases):,} of {worklist.all_cases:,} cases in {target}"
        + ("" if few else f", pictures in {target.with_suffix('.pictures')}"),
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if not same:
        console.print(
            "The job was scored with another bundle than DERMQ_BUNDLE: the page has no figures and no heat maps.",
            highlight=False,
        )
    if gone:
        console.print(
            f"{gone:,} pictures cannot be read, or are not those that were scored; the page says so.", highlight=False
        )
    if worklist.waiting:
        console.print(f"WARNING: {worklist.waiting:,} images have no outcome yet and are not in it.", highlight=False)
