"""Commands that measure how good a run or a bundle is."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainer.cli.arguments import PATH, cache_option, dataset_option, say
from trainer.cli.printing import print_beside_card, print_external, print_figures, print_robustness

if TYPE_CHECKING:
    from trainer.evaluation.options import EvaluationOptions


@click.command(short_help="Evaluate RUN or a bundle, and write a report.")
@click.argument("run", type=PATH)
@dataset_option(required=False)
@cache_option("Folder of thumbnails.")
@click.option(
    "--skip-robustness",
    is_flag=True,
    help="Leave out robustness, the other diagnoses and the table of all seven.",
)
@click.option("--without-pictures", is_flag=True, help="Put no pictures of missed melanomas into report.html.")
@click.option(
    "--seed-run", "seed_runs", type=PATH, multiple=True, help="An evaluated run with another seed. May be repeated."
)
@click.option(
    "--left-out-run",
    "left_out_runs",
    type=PATH,
    multiple=True,
    help="A run trained without a source. May be repeated.",
)
@click.option("--bundle", type=PATH, help="Bundle of RUN, to compare its engine with the Keras model.")
@click.option(
    "--remark",
    "remarks",
    multiple=True,
    help="Sentence for report and card about what RUN does not record, such as other recipes that were evaluated on "
    "the same test split. May be repeated.",
)
@click.option("--external", type=PATH, help="Evaluate on this folder of images. Nothing accesses the test split.")
@click.option(
    "--labels",
    type=PATH,
    help="CSV for --external: image, label (melanoma, nevus, or HAM10000's bcc, "
    "bkl ...); optional lesion_id, age, sex, site.",
)
def evaluate(
    run: Path,
    dataset: tuple[Path, ...],
    external: Path | None,
    labels: Path | None,
    without_pictures: bool,
    **options: Any,
) -> None:
    """Score the test split with RUN, and write metrics.json, report.json and report.html.

    RUN is the folder of a run or of a bundle. A bundle is evaluated as a worker runs it, and its report goes into the
    current folder. Each access to the test split is logged. With --external, RUN is evaluated on images of another
    clinic instead, at its own thresholds and after recalibration.

    \b
    dermq-train evaluate runs/first
    dermq-train evaluate runs/first --seed-run runs/second --seed-run runs/third
    dermq-train evaluate models/ham10000-mel-nv --dataset HAM10000 --dataset more-dermoscopy
    dermq-train evaluate runs/first --external /data/clinic --labels /data/clinic.csv
    dermq-train evaluate models/ham10000-mel-nv --external /data/clinic --labels /data/clinic.csv
    """
    from trainer.evaluation.options import EvaluationOptions

    if (external is None) != (labels is None):
        raise click.UsageError("--external FOLDER and --labels CSV belong together, and one of them is missing.")
    chosen = EvaluationOptions(pictures=not without_pictures, say=say, **options)
    if external is not None and labels is not None:
        if given := _given(options, ("seed_runs", "left_out_runs", "bundle", "remarks")):
            raise click.UsageError(f"{given} belongs to the report on the test split. Leave it out with --external.")
        _evaluate_external(run, external, labels, chosen)
        return
    from trainer.evaluation.subject import is_bundle, require_run_or_bundle

    of_bundle = is_bundle(run)
    if of_bundle and (given := _given(options, ("seed_runs", "left_out_runs", "bundle"))):
        raise click.UsageError(
            f"{given} compares a run with others, and {run} is a bundle. Leave it out, or name a run."
        )
    require_run_or_bundle(run)
    if not dataset:
        raise click.UsageError(
            "Missing option '--dataset' (or the variable DERMQ_HAM10000): the folder of HAM10000. For other images "
            "name --external FOLDER and --labels CSV."
        )
    if of_bundle:
        _evaluate_bundle(dataset, run, chosen)
        return
    from trainer.data.splits import LESION_DISJOINT, split_kind
    from trainer.evaluation.of_run import evaluate

    metrics = evaluate(dataset, run, chosen)
    print_figures(metrics.auroc, metrics.policies, "Test AUROC")
    # A run with a leaking split cannot be exported.
    leaks = split_kind(run) != LESION_DISJOINT
    next_step = "" if leaks else f" Next: dermq-train export {run} BUNDLE --version N"
    click.echo(f"All figures: {run / 'report.html'}.{next_step}")


def _given(options: dict[str, Any], names: Sequence[str]) -> str:
    """Which of the options were given, as they are typed. An empty text for none."""
    known = click.get_current_context().command.params
    return " and ".join(option.opts[0] for option in known if option.name in names and options[option.name])


def _evaluate_external(run: Path, images: Path, labels: Path, options: "EvaluationOptions") -> None:
    from trainer.evaluation.of_external import evaluate_external

    report, target = evaluate_external(run, images, labels, options)
    print_external(report)
    holds = "the score of each image" + (" and pictures" if report.missed and options.pictures else "")
    click.echo(f"All figures: {target / 'report.html'}. The folder holds {holds}: keep it on this machine")


def _evaluate_bundle(datasets: tuple[Path, ...], folder: Path, options: "EvaluationOptions") -> None:
    from trainer.evaluation.of_bundle import evaluate_bundle

    metrics, bundle, target = evaluate_bundle(datasets, folder, options)
    print_figures(metrics.auroc, metrics.policies, "Test AUROC")
    if bundle.manifest.recalibration is None:
        print_beside_card(metrics, bundle.manifest.metrics)
    click.echo(f"All figures: {target / 'report.html'}. The folder holds the score of each image")


@click.command(short_help="Measure RUN on changed validation images.")
@click.argument("run", type=PATH)
@dataset_option()
def robustness(run: Path, dataset: tuple[Path, ...]) -> None:
    """Measure RUN on validation images with synthetic hair, rulers, ink, dark rims, blur and compression.

    Also measures how RUN separates melanomas from nevi of the same source. Nothing accesses the test split, so runs
    may be chosen by these figures. robustness.json has all of them.

    \b
    dermq-train robustness runs/first
    """
    from trainer.evaluation.robustness_of_run import robustness_on_validation

    print_robustness(robustness_on_validation(dataset, run))


@click.command(short_help="Write the model card of RUN.")
@click.argument("run", type=PATH)
@click.option("--out", type=PATH, help="File to write. Without it the card goes to standard output.")
def card(run: Path, out: Path | None) -> None:
    """Write the model card of RUN, from the figures of its evaluation.

    \b
    dermq-train card runs/first --out CARD.md
    """
    from trainer.card.model_card import card_of_run

    text = card_of_run(run)
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    click.echo(f"{out}: model card of {run}")
