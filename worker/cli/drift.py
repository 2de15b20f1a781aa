"""``dermq drift`` and ``dermq challenge``: images that the bundle does not know, and a second bundle."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from db.status import JobStatus
from worker.cli.session import JOB_NUMBER, current_actor, open_checked_database
from worker.errors import DermqError
from worker.settings import load_settings
from worker.terminal import make_console, printable

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from db.jobs import JobView


def _existing(database: "Engine", job: int) -> "JobView":
    """A job that is not being deleted."""
    from worker.monitor.job_status import find_job

    view = find_job(database, job)
    if view.status is JobStatus.DELETING:
        raise DermqError(f"Job {job} is being deleted.")
    return view


@click.command(short_help="Compare a job's images with those that the bundle was made with.")
@click.argument("jobs", type=JOB_NUMBER, nargs=-1, required=True)
def drift(jobs: tuple[int, ...]) -> None:
    """Compare probability, contrast, sharpness and appearance of the images of JOBS with the bundle's reference, by the
    population stability index: up to 0.1 is usual, from 0.25 on the images are others. Folders directly below the root
    are compared too, where they have images enough. Of a larger job 20,000 images are looked at.

    Other probabilities may only mean fewer melanomas. Other images, at a new clinic or from a new camera, need a look
    at `dermq-train evaluate --external` before the flags are trusted.

    Exit status 1: the drift of the images is strong somewhere.
    """
    from db.drift import sample_of_job
    from db.session import read
    from worker.inference.bundle import load_bundle
    from worker.monitor.drift import MOST_OF_FOLDERS, STRONG, by_folder, measure_drift

    database = open_checked_database()
    bundle, strong = load_bundle(load_settings().resolved_bundle()), False
    for job in jobs:
        view = _existing(database, job)
        if view.bundle_sha256 != bundle.sha256:
            raise DermqError(
                f"Job {job} was scored with {printable(view.bundle_name)} {printable(view.bundle_version)}, and "
                "DERMQ_BUNDLE is another one, so the reference is not known. Set DERMQ_BUNDLE to the bundle of the job."
            )
        sample = read(database, lambda connection, job=job: sample_of_job(connection, job, MOST_OF_FOLDERS))  # type: ignore[misc]
        parts = [(f"job {job}", sample), *((f"  {printable(name)}", part) for name, part in by_folder(sample))]
        for name, part in parts:
            found = measure_drift(part, bundle.manifest)
            if not found:
                click.echo(f"{name}: too few scored images with measures ({len(part):,}) for a comparison")
            for each in found:
                strong |= each.measure != "probability" and each.index >= STRONG
                click.echo(
                    f"{name}: {each.measure} {each.verdict} ({each.index:.2f}), median {each.median:.3g}, reference "
                    f"{each.reference:.3g}, {each.images:,} images"
                )
    if strong:
        sys.exit(1)


@click.command(short_help="Score a share of a job with a second bundle, and compare.")
@click.argument("job", type=JOB_NUMBER)
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--share", type=click.FloatRange(0, 1, min_open=True), default=0.1, show_default=True, help="Of the job's images."
)
def challenge(job: int, bundle: Path, share: float) -> None:
    """Score a share of the images of JOB with a second BUNDLE, in the shadow: nothing is stored, no flag changes. Says
    where the two disagree, and by diagnoses of `dermq feedback` which one ranks better.

    \b
    dermq challenge 7 models/clinic --share 0.2
    """
    from db.audit import append_entry
    from db.feedback import reviewed_images
    from db.session import read, transact
    from db.status import AuditAction, ImageStatus
    from db.worklist import outcomes_by_image
    from worker.images.read_any import reader_of
    from worker.inference.bundle import TRAINING_IMAGE_DIGITS, load_bundle, training_digests
    from worker.local.challenge import challenge
    from worker.monitor.performance import FEWEST, is_melanoma
    from worker.scoring.loaded_model import LoadedModel

    settings, database, console = load_settings(), open_checked_database(), make_console(stderr=True)
    view = _existing(database, job)
    loaded = load_bundle(bundle)
    loaded.thresholds(view.policy)
    rows = read(
        database,
        lambda connection: [
            row
            for number, row in enumerate(outcomes_by_image(connection, job))
            # One whenever the share passes the next whole number: spread evenly.
            if int((number + 1) * share) > int(number * share)
            and row.status in (ImageStatus.SCORED, ImageStatus.UNGRADABLE)
        ],
    )
    if not rows:
        raise DermqError(f"Job {job} has no image with an outcome in this share. Give a larger --share.")
    reviewed = read(database, lambda connection: list(reviewed_images(connection, job)))
    trained_on = training_digests(loaded)
    # Diagnoses of images that the challenger was trained on say nothing about it.
    known = {row.image_id for row in rows if (row.image_sha256 or "")[:TRAINING_IMAGE_DIGITS] not in trained_on}
    diagnoses = {
        image.image_id: melanoma
        for image in reviewed
        if image.image_id in known and image.diagnosis and (melanoma := is_melanoma(image.diagnosis)) is not None
    }
    detail = {"images": len(rows), "bundle": loaded.sha256}
    transact(
        database,
        lambda connection: append_entry(
            connection, actor=current_actor(), action=AuditAction.COMPARED, job_id=job, detail=detail
        ),
    )
    model = LoadedModel.load(loaded, settings.engine)
    with console.status("scoring …") as status:
        found = challenge(
            rows,
            reader_of(view.root),
            model,
            policy=view.policy,
            max_bytes=settings.max_file_bytes,
            diagnoses=diagnoses,
            progress=lambda done: status.update(f"scoring … {done:,} of {len(rows):,}"),
        )
    champion = f"{view.bundle_name} {view.bundle_version}"
    challenger = f"{loaded.manifest.name} {loaded.manifest.version}"
    click.echo(f"champion {printable(champion)}, challenger {printable(challenger)}, policy {printable(view.policy)}")
    total = found.flags.total()
    same = sum(count for (one, other), count in found.flags.items() if one is other)
    click.echo(f"same flag: {same:,} of {total:,} images" + (f" ({same / total:.1%})" if total else ""))
    for (one, other), count in found.flags.most_common():
        if one is not other:
            click.echo(f"  {one} by the champion, {other} by the challenger: {count:,}")
    if (correlation := found.rank_correlation) is not None:
        click.echo(f"rank correlation: {correlation:.3f}")
    areas = found.area(found.champion), found.area(found.challenger)
    labels = [each for each in found.melanoma if each is not None]
    if labels and (sum(labels) < FEWEST or areas[0] is None or areas[1] is None):
        click.echo(
            f"too few melanomas by diagnosis ({sum(labels):,}, {FEWEST} are the least) to say which ranks better"
        )
    elif areas[0] is not None and areas[1] is not None:
        click.echo(
            f"area under the ROC curve, {sum(labels):,} melanomas and {len(labels) - sum(labels):,} others by "
            f"diagnosis: champion {areas[0]:.3f}, challenger {areas[1]:.3f}"
        )
    if found.changed:
        click.echo(f"{found.changed:,} images cannot be read now, or are not those that were scored.", err=True)
