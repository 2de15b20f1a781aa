"""``dermq-train``: from HAM10000 to a bundle."""

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from trainer.cli.error_handling import CommandGroup
from trainer.cli.options import config_options
from trainer.cli.printing import (
    AFTER_FOLDS,
    print_beside_card,
    print_crossfitted,
    print_external,
    print_figures,
    print_recalibrated,
    print_trained,
)
from trainer.training.malloc import keep_freed_memory

if TYPE_CHECKING:
    from trainer.evaluation.of_run import EvaluationOptions
    from worker.inference.bundle import Precision

# TensorFlow's start-up notes about processors and CUDA are not for the person who trains; nor, without a GPU, its error
# that there is none. The price: what else goes wrong in there is then told by Python's exception alone.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if Path("/dev/nvidiactl").exists() else "3")

_FOLDER = click.Path(path_type=Path)
_DATASET = click.option(
    "--dataset",
    envvar="DERMQ_HAM10000",
    show_envvar=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of HAM10000 in its published layout.",
)


@click.group(cls=CommandGroup)
def main() -> None:
    """Train a melanoma classifier on HAM10000 and export it for dermq's workers.

    \b
    export DERMQ_HAM10000=/data/HAM10000
    dermq-train fit runs/first
    dermq-train evaluate runs/first
    dermq-train export runs/first models/mine --version 1
    """
    keep_freed_memory()


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@_DATASET
@click.option(
    "--cache",
    type=click.Path(path_type=Path),
    default=Path(".cache/dermq"),
    show_default=True,
    help="Folder of the decoded images, 2 GB at 224 pixels with seven classes; may be removed afterwards.",
)
@config_options
@click.pass_context
def fit(context: click.Context, /, run: Path, dataset: Path, cache: Path, preset: str, **settings: Any) -> None:
    """Train into the folder RUN; the best epoch by validation AUC is kept, or with --checkpoint last the last.

    An interrupted run goes on when the same command is given again. The defaults are those of the preset "clean"; what
    is given by name overrides a preset.

    \b
    dermq-train fit runs/first
    dermq-train fit runs/brief --preset reference --weights resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5
    dermq-train fit runs/leak --preset reference --backbone efficientnet-lite0
    """
    from trainer.data.ham10000 import metadata_file
    from trainer.presets import configure
    from trainer.run_folder import RunFolder

    default = click.core.ParameterSource.DEFAULT
    given = {name: value for name, value in settings.items() if context.get_parameter_source(name) is not default}
    RunFolder(run).refuse_taken()
    metadata_file(dataset)
    config = configure(preset, given)
    # After folders and settings are known to be good, for it loads TensorFlow, which takes seconds.
    from trainer.training.fit import fit

    print_trained(run, config, fit(dataset, run, cache, config))


@main.command()
@click.argument("run", type=_FOLDER)
@click.argument("members", type=_FOLDER, nargs=-1, required=True)
@_DATASET
@click.option("--cache", type=_FOLDER, default=Path(".cache/dermq"), show_default=True, help="As for fit.")
def average(run: Path, members: tuple[Path, ...], dataset: Path, cache: Path) -> None:
    """Average the weights of MEMBERS, runs that differ by their seed, into the folder RUN.

    One network, as fast as any of them, that often does better than each. They must go on from the same run.

    \b
    dermq-train fit runs/trunk
    dermq-train fit runs/two --weights runs/trunk --seed 2
    dermq-train fit runs/three --weights runs/trunk --seed 3
    dermq-train average runs/both runs/two runs/three
    """
    from trainer.config import RunConfig
    from trainer.training.weight_averaging import average, validation_auc

    auc = average(dataset, run, members, cache)
    if math.isnan(auc):
        click.echo(f"Averaged {len(members)} runs without a validation side. Next: dermq-train crossfit {run} FOLD...")
        return
    of_members = {member: validation_auc(member) for member in members}
    for member, found in of_members.items():
        click.echo(f"{member}: validation AUC {found:.4f}")
    best = max(of_members, key=lambda member: of_members[member])
    if fold := RunConfig.read(run).fold:
        # Whichever is better there: all folds are made by one recipe.
        click.echo(f"{run}: AUC {auc:.4f} on fold {fold}, held out. {AFTER_FOLDS}")
        return
    click.echo(f"{run}: validation AUC {auc:.4f}" + (", less than the best of them" if auc < of_members[best] else ""))
    click.echo(f"Next: dermq-train evaluate {run if auc >= of_members[best] else best}")


@main.command()
@click.argument("run", type=_FOLDER)
@click.argument("folds", type=_FOLDER, nargs=-1, required=True)
def crossfit(run: Path, folds: tuple[Path, ...]) -> None:
    """Choose calibration and thresholds of RUN, trained on all images outside test, by what FOLDS say of them.

    FOLDS are runs of the same recipe, each of which held out another fold and predicted it. Every lesion outside test
    then counts in the choice, and none is lost to training. The test split stays sealed.

    \b
    for k in 1 2 3 4; do dermq-train fit runs/fold$k --fold $k/4 --checkpoint last; done
    dermq-train fit runs/all --fold all --checkpoint last
    dermq-train crossfit runs/all runs/fold1 runs/fold2 runs/fold3 runs/fold4
    """
    from trainer.evaluation.crossfit import crossfit

    print_crossfitted(crossfit(run, folds))
    click.echo(f"Next: dermq-train evaluate {run}")


@main.command()
@click.argument("run", type=_FOLDER)
@click.option(
    "--dataset",
    envvar="DERMQ_HAM10000",
    show_envvar=True,
    type=_FOLDER,
    help="Folder of HAM10000 in its published layout; not needed with --external.",
)
@click.option("--cache", type=_FOLDER, default=Path(".cache/dermq"), show_default=True, help="Folder of thumbnails.")
@click.option(
    "--quick",
    is_flag=True,
    help="Leave out robustness and the other diagnoses, and with them the table of all seven.",
)
@click.option("--without-pictures", is_flag=True, help="Put no picture of a missed melanoma into report.html.")
@click.option("--seeds", type=_FOLDER, multiple=True, help="An evaluated run with another seed; may be repeated.")
@click.option("--also", type=_FOLDER, multiple=True, help="A run trained without a source; may be repeated.")
@click.option("--bundle", type=_FOLDER, help="Bundle of RUN, to compare its engine with the Keras model.")
@click.option(
    "--remark",
    "remarks",
    multiple=True,
    help="Sentence that stands beside the figures in report and card; may be repeated. For what RUN does not tell, "
    "such as other recipes that were judged on the same test split.",
)
@click.option(
    "--external", type=_FOLDER, help="Judge RUN, or a bundle, on this folder of images; the test split stays sealed."
)
@click.option(
    "--labels",
    type=_FOLDER,
    help="CSV for --external: image, label (melanoma, nevus, or HAM10000's bcc, bkl ...); optional lesion_id, age, "
    "sex, site.",
)
def evaluate(
    run: Path, dataset: Path | None, external: Path | None, labels: Path | None, without_pictures: bool, **options: Any
) -> None:
    """Open the sealed test split for RUN, and write metrics.json, report.json and report.html into it.

    Each opening is logged in the run folder. With --external nothing is opened: images from elsewhere are judged, with
    the run's own threshold and after recalibration. RUN may be a bundle either way: it is judged as a worker runs it,
    and its report goes into the current folder.

    \b
    dermq-train evaluate runs/first
    dermq-train evaluate runs/first --seeds runs/second --seeds runs/third
    dermq-train evaluate models/ham10000-mel-nv
    dermq-train evaluate runs/first --external /data/clinic --labels /data/clinic.csv
    dermq-train evaluate models/ham10000-mel-nv --external /data/clinic --labels /data/clinic.csv
    """
    if (external is None) != (labels is None):
        raise click.UsageError("--external FOLDER and --labels CSV belong together; one of them is missing.")
    if external is not None and labels is not None:
        if given := _given(options, ("seeds", "also", "bundle", "remarks")):
            raise click.UsageError(
                f"{given} would belong to the report of the test split; --external writes another one, without."
            )
        from trainer.evaluation.of_external import evaluate_external

        report, target = evaluate_external(
            run, external, labels, pictures=not without_pictures, quick=options["quick"], say=_say
        )
        print_external(report)
        holds = "scores of each image" + (", with pictures" if report["missed"] and not without_pictures else "")
        click.echo(f"All figures: {target / 'report.html'}; the folder holds {holds} and stays here")
        return
    from trainer.evaluation.subject import is_bundle, require_run_or_bundle

    of_bundle = is_bundle(run)
    if of_bundle and (given := _given(options, ("seeds", "also", "bundle"))):
        raise click.UsageError(
            f"{run} is a bundle, and {given} would compare a run with others: leave them out, or give the folder of a "
            "run."
        )
    require_run_or_bundle(run)
    if dataset is None:
        raise click.UsageError(
            "Missing option '--dataset' (or the variable DERMQ_HAM10000): the folder of HAM10000. For other images "
            "give --external FOLDER and --labels CSV."
        )
    from trainer.data.splits import LESION_DISJOINT, split_kind
    from trainer.evaluation.of_run import EvaluationOptions, evaluate

    how = EvaluationOptions(pictures=not without_pictures, say=_say, **options)
    if of_bundle:
        _evaluate_bundle(dataset, run, how)
        return
    metrics = evaluate(dataset, run, how)
    print_figures(metrics["auroc"], metrics["policies"], "Test AUC")
    # What leaks makes no bundle.
    leaks = split_kind(run) != LESION_DISJOINT
    next_step = "" if leaks else f" Next: dermq-train export {run} BUNDLE --version N"
    click.echo(f"All figures: {run / 'report.html'}.{next_step}")


def _say(line: str) -> None:
    """Tell whoever waits what is being done."""
    click.echo(f"{line} ...", err=True)


def _given(options: dict[str, Any], names: Sequence[str]) -> str:
    """Which of the options were given, as they are typed; an empty text for none."""
    known = click.get_current_context().command.params
    return " and ".join(option.opts[0] for option in known if option.name in names and options[option.name])


def _evaluate_bundle(dataset: Path, folder: Path, how: "EvaluationOptions") -> None:
    from trainer.evaluation.of_bundle import evaluate_bundle

    metrics, bundle, target = evaluate_bundle(dataset, folder, how)
    print_figures(metrics["auroc"], metrics["policies"], "Test AUC")
    if bundle.manifest.recalibration is None:
        print_beside_card(metrics, bundle.manifest.metrics)
    click.echo(f"All figures: {target / 'report.html'}; the folder holds scores of each image")


@main.command()
@click.argument("run", type=_FOLDER)
@_DATASET
def stress(run: Path, dataset: Path) -> None:
    """Draw hair, rulers, ink, rims, blur and compression on validation images, and say what RUN makes of them.

    And how well it tells melanomas from nevi of the same source, where the source gives nothing away. The test split
    stays sealed, so runs may be chosen by this. Everything goes into robustness.json.

    \b
    dermq-train stress runs/first
    """
    from trainer.evaluation.robustness_of_run import robustness_on_validation

    found = robustness_on_validation(dataset, run)
    policy = next(iter(found["policies"]))
    click.echo(f"At {policy}, {found['images']['melanoma']} melanoma and {found['images']['nevus']} nevus images:")
    click.echo(f"{'':24}  sensitivity  specificity  AUC")
    unchanged = {"name": "unchanged", "policies": found["policies"], "auroc": found["auroc"]}
    for change in (unchanged, *found["changes"]):
        name = change["name"] + (f", {change['unit']}: {change['strength']:g}" if "unit" in change else "")
        at = change["policies"][policy]
        click.echo(
            f"{name:24}  {at['sensitivity']['value']:11.3f}  {at['specificity']['value']:11.3f}  "
            f"{change['auroc']['value']:.3f}"
        )
    for stratum in found["subgroups"]:
        click.echo(f"{stratum['variable']}, all validation images:")
        for group in stratum["groups"]:
            auc = f"AUC {group['auroc']['value']:.3f}" if group["auroc"] else "no AUC"
            counts = " and ".join(f"{group['images'][name]} {name}" for name in ("melanoma", "nevus"))
            click.echo(f"{group['group']:24}  {auc}, {counts} images")


@main.command()
@click.argument("run", type=_FOLDER)
@click.option("--out", type=_FOLDER, help="File to write; without it the card goes to standard output.")
def card(run: Path, out: Path | None) -> None:
    """Write the model card of RUN, from the figures that its evaluation left.

    \b
    dermq-train card runs/first --out CARD.md
    """
    from trainer.card.model_card import card_of_run

    text = card_of_run(run)
    if out is None:
        click.echo(text, nl=False)
        return
    out.write_text(text, encoding="utf-8")
    click.echo(f"{out}: the card of {run}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
@_DATASET
@click.option("--name", help="Name of the bundle, which predictions and exports carry.  [default: that of the folder]")
@click.option("--version", required=True, help="Version of the bundle, for example 1.")
@click.option(
    "--precision",
    type=click.Choice(["float32", "int8"]),
    default="float32",
    show_default=True,
    help="int8 is refused where it costs too much on the test images.",
)
@click.option("--replace", is_flag=True, help="Put the new bundle in the place of the one that BUNDLE holds.")
def export(
    run: Path, bundle: Path, dataset: Path, name: str | None, version: str, precision: "Precision", replace: bool
) -> None:
    """Write the bundle of RUN into the folder BUNDLE, if it equals the Keras model on real images.

    \b
    dermq-train export runs/first models/mine --version 1
    DERMQ_BUNDLE=models/mine dermq up
    """
    from trainer.export.export import export

    name = name or bundle.resolve().name
    exported = export(dataset, run, bundle, name=name, version=version, precision=precision, replace=replace, say=_say)
    click.echo(f"{bundle}: {exported.manifest.name} {exported.manifest.version}, SHA-256 {exported.sha256}")


@main.command()
@click.argument("bundle", type=_FOLDER)
@click.argument("target", type=_FOLDER)
@click.option("--external", type=_FOLDER, required=True, help="Folder of images, as for evaluate.")
@click.option("--labels", type=_FOLDER, required=True, help="CSV of what they show, as for evaluate.")
@click.option("--name", help="Name of the new bundle.  [default: that of the folder TARGET]")
@click.option("--version", required=True, help="Version of the new bundle, for example 1.")
@click.option("--replace", is_flag=True, help="Put the new bundle in the place of the one that TARGET holds.")
def recalibrate(
    bundle: Path, target: Path, external: Path, labels: Path, name: str | None, version: str, replace: bool
) -> None:
    """Write BUNDLE's model into TARGET with calibration and thresholds for images of your own.

    For a clinic whose images the flags do not fit. The order of a worklist stays as it is. The sensitivity and
    specificity that are printed are cross-fitted: each image judged by thresholds that were chosen on other lesions.

    \b
    dermq-train recalibrate models/ham10000-mel-nv models/clinic --external /data/clinic --labels clinic.csv --version 1
    DERMQ_BUNDLE=models/clinic dermq up
    """
    from trainer.export.recalibrate import recalibrate_bundle

    name = name or target.resolve().name
    made, policies = recalibrate_bundle(
        bundle, target, external, labels, name=name, version=version, replace=replace, say=_say
    )
    print_recalibrated(made.manifest, policies.refused)
    click.echo(f"{target}: {made.manifest.name} {made.manifest.version}, SHA-256 {made.sha256}")
