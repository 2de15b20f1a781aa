"""Commands that write a bundle."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from trainer.cli.arguments import PATH, dataset_option, say
from trainer.cli.printing import print_precision_cost, print_recalibrated

if TYPE_CHECKING:
    from worker.inference.precision import Precision


@click.command(short_help="Convert RUN to a precision, with thresholds of its own.")
@click.argument("run", type=PATH)
@click.argument("precision", type=click.Choice(["float32", "bfloat16", "int8"]))
@dataset_option()
def serve(run: Path, precision: "Precision", dataset: tuple[Path, ...]) -> None:
    """Convert RUN's network to a PRECISION, and choose calibration and thresholds on its outputs there.

    The folds of a cross-fitted run must lie beside it: each is converted, and predicts what it held out. A precision is
    refused if it loses more than 0.003 of the area under the ROC curve, or more than 0.01 of the sensitivity at equal
    specificity. Nothing accesses the test split. Evaluate and export RUN after it.

    \b
    dermq-train serve runs/first bfloat16
    """
    from trainer.evaluation.served import serve

    served = serve(dataset, run, precision, say)
    if served.cost is not None:
        print_precision_cost(served.cost)
    click.echo(f"Next: dermq-train evaluate {run}")


@click.command(short_help="Write the bundle of RUN into the folder BUNDLE.")
@click.argument("run", type=PATH)
@click.argument("bundle", type=PATH)
@dataset_option()
@click.option("--name", help="Name of the bundle, for predictions and exports.  [default: name of the folder]")
@click.option("--version", required=True, help="Version of the bundle, such as 1.")
@click.option(
    "--not-dermoscopy",
    type=PATH,
    multiple=True,
    help="Folder of pictures that are no dermoscopy, for the gate that refuses such. Several times: several folders.",
)
@click.option("--replace", is_flag=True, help="Replace the bundle that BUNDLE holds.")
def export(
    run: Path,
    bundle: Path,
    dataset: tuple[Path, ...],
    name: str | None,
    version: str,
    not_dermoscopy: tuple[Path, ...],
    replace: bool,
) -> None:
    """Write the bundle of RUN into the folder BUNDLE, if it gives the same as the Keras model on real images.

    \b
    dermq-train export runs/first models/mine --version 1
    DERMQ_BUNDLE=models/mine dermq up
    """
    from trainer.export.export import export

    name = name or bundle.resolve().name
    exported = export(
        dataset, run, bundle, name=name, version=version, not_dermoscopy=not_dermoscopy, replace=replace, say=say
    )
    click.echo(f"{bundle}: {exported.manifest.name} {exported.manifest.version}, SHA-256 {exported.sha256}")


@click.command(short_help="Fit BUNDLE's thresholds on labelled images of your clinic.")
@click.argument("bundle", type=PATH)
@click.argument("target", type=PATH)
@click.option("--external", type=PATH, required=True, help="Folder of images, as for evaluate.")
@click.option("--labels", type=PATH, required=True, help="CSV with labels, as for evaluate.")
@click.option("--name", help="Name of the new bundle.  [default: name of the folder TARGET]")
@click.option("--version", required=True, help="Version of the new bundle, such as 1.")
@click.option("--replace", is_flag=True, help="Replace the bundle that TARGET holds.")
def recalibrate(
    bundle: Path, target: Path, external: Path, labels: Path, name: str | None, version: str, replace: bool
) -> None:
    """Write BUNDLE's model into TARGET, with calibration and thresholds fitted on labelled images of your clinic.

    The order of a worklist does not change, only flags and probabilities. The printed sensitivity and specificity are
    cross-fitted: the flag of each image comes from thresholds that were chosen on other lesions.

    \b
    dermq-train recalibrate models/ham10000-mel-nv models/clinic --external /data/clinic --labels clinic.csv --version 1
    DERMQ_BUNDLE=models/clinic dermq up
    """
    from trainer.export.recalibrate import recalibrate_bundle

    name = name or target.resolve().name
    made, policies = recalibrate_bundle(
        bundle, target, external, labels, name=name, version=version, replace=replace, say=say
    )
    print_recalibrated(made.manifest, policies.refused)
    click.echo(f"{target}: {made.manifest.name} {made.manifest.version}, SHA-256 {made.sha256}")
