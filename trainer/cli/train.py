"""Commands that train a run."""

from pathlib import Path
from typing import Any

import click

from trainer.cli.arguments import PATH, cache_option, dataset_option
from trainer.cli.options import config_options
from trainer.cli.printing import print_crossfitted, print_trained


@click.command(short_help="Train a model into the folder RUN.")
@click.argument("run", type=PATH)
@dataset_option()
@cache_option("Folder of the decoded images: 2 GB at 224 pixels with seven classes. May be removed afterwards.")
@config_options
@click.pass_context
def fit(
    context: click.Context, /, run: Path, dataset: tuple[Path, ...], cache: Path, preset: str, **settings: Any
) -> None:
    """Train a model into the folder RUN.

    The epoch with the best validation AUC is kept, or the last one with --checkpoint last. Run the same command again
    to continue an interrupted run. The defaults are those of the preset "clean"; options override a preset.

    \b
    dermq-train fit runs/first
    dermq-train fit runs/brief --preset reference --weights resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5
    dermq-train fit runs/leak --preset reference --backbone efficientnet-lite0
    """
    from trainer.data.readers import require_dataset
    from trainer.presets import configure
    from trainer.run_folder import RunFolder

    default = click.core.ParameterSource.DEFAULT
    given = {name: value for name, value in settings.items() if context.get_parameter_source(name) is not default}
    RunFolder(run).refuse_taken()
    for folder in dataset:
        require_dataset(folder)
    config = configure(preset, given)
    # Loads TensorFlow, which takes seconds: after folders and settings are checked.
    from trainer.training.fit import fit

    print_trained(run, config, fit(dataset, run, cache, config))


@click.command(short_help="Choose thresholds of a --fold all run from its folds.")
@click.argument("run", type=PATH)
@click.argument("folds", type=PATH, nargs=-1, required=True)
def crossfit(run: Path, folds: tuple[Path, ...]) -> None:
    """Choose calibration and thresholds of RUN, trained on all images outside test, from predictions of FOLDS.

    FOLDS are runs of the same recipe. Each of them held out another fold and predicted it. So every lesion outside test
    counts in the choice, and none is lost to training. Nothing accesses the test split.

    \b
    for k in 1 2 3 4; do dermq-train fit runs/fold$k --fold $k/4 --checkpoint last; done
    dermq-train fit runs/all --fold all --checkpoint last
    dermq-train crossfit runs/all runs/fold1 runs/fold2 runs/fold3 runs/fold4
    """
    from trainer.evaluation.crossfit import crossfit

    print_crossfitted(crossfit(run, folds))
    click.echo(f"Next: dermq-train evaluate {run}")
