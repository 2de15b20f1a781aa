"""``dermq-train``: from HAM10000 to a bundle."""

import os
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

# TensorFlow's start-up notes about processors and CUDA are not for the person who trains.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_DATASET = click.option(
    "--dataset",
    envvar="DERMQ_HAM10000",
    show_envvar=True,
    required=True,
    type=click.Path(path_type=Path),
    help="Folder of HAM10000 in its published layout.",
)


class _Group(click.Group):
    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except Exception as error:
            if type(error).__name__ in _EXPECTED:
                click.echo(f"dermq-train: {error}", err=True)
                raise SystemExit(2) from None
            raise


#: Errors whose text is for the person who trains; by name, since importing them imports TensorFlow.
_EXPECTED = {
    "BundleError",
    "DatasetError",
    "ExportError",
    "FileExistsError",
    "FileNotFoundError",
    "ModuleNotFoundError",
    "SplitError",
    "ValueError",
}


@click.group(cls=_Group)
def main() -> None:
    """Train a melanoma classifier on HAM10000 and export it for dermq's workers.

    \b
    export DERMQ_HAM10000=/data/HAM10000
    dermq-train fit runs/first
    dermq-train evaluate runs/first
    dermq-train export runs/first models/ham10000-mel-nv --version 1
    """


def _config_options(command: Any) -> Any:
    """An option for each field of the run's settings, with its default."""
    from trainer.config import FitConfig

    for field in reversed(fields(FitConfig)):
        flag = f"--{field.name.replace('_', '-')}"
        command = click.option(flag, type=type(field.default), default=field.default, show_default=True)(command)
    return command


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@_DATASET
@click.option("--cache", type=click.Path(path_type=Path), default=Path(".cache/dermq"), show_default=True)
@_config_options
def fit(run: Path, dataset: Path, cache: Path, **settings: Any) -> None:
    """Train into the folder RUN; the best epoch by validation AUC is kept."""
    from trainer.config import FitConfig
    from trainer.fit import fit

    auc = fit(dataset, run, cache, replace(FitConfig(), **settings))
    click.echo(f"Best validation AUC {auc:.4f}. Next: dermq-train evaluate {run}")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@_DATASET
def evaluate(run: Path, dataset: Path) -> None:
    """Open the sealed test split for RUN; each opening is logged in the run folder."""
    from trainer.evaluate import evaluate

    metrics = evaluate(dataset, run)
    auroc = metrics["auroc"]
    click.echo(f"Test AUC {auroc['value']:.4f} (95% interval {auroc['low']:.4f} to {auroc['high']:.4f})")
    for name, policy in metrics["policies"].items():
        click.echo(
            f"{name}: threshold {policy['threshold']:.4f}, sensitivity {policy['sensitivity']['value']:.4f}, "
            f"specificity {policy['specificity']['value']:.4f}, "
            f"{policy['missed_melanoma_images']} of {metrics['images']['melanoma']} melanoma images missed"
        )
    click.echo(f"All figures: {run / 'metrics.json'}. Next: dermq-train export {run} BUNDLE")


@main.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
@_DATASET
@click.option("--name", default="ham10000-mel-nv", show_default=True)
@click.option("--version", required=True, help="Version of the bundle, for example 1.")
def export(run: Path, bundle: Path, dataset: Path, name: str, version: str) -> None:
    """Write the bundle of RUN into the folder BUNDLE, if it equals the Keras model on real images."""
    from trainer.export import export

    exported = export(dataset, run, bundle, name=name, version=version)
    click.echo(f"{bundle}: {exported.manifest.name} {exported.manifest.version}, SHA-256 {exported.sha256}")


if __name__ == "__main__":
    main()
