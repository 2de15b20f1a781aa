"""``dermq-train``: from data sets to a bundle. Each module holds the commands of one subject."""

import os
from pathlib import Path

import click

from trainer.cli.error_handling import CommandGroup
from trainer.cli.evaluate import card, evaluate, robustness
from trainer.cli.export import export, recalibrate, serve
from trainer.cli.train import crossfit, fit
from trainer.training.malloc import keep_freed_memory
from worker import __version__

# Hides TensorFlow's notes about processors and CUDA and, without a GPU, its error that there is none.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if Path("/dev/nvidiactl").exists() else "3")


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dermq-train")
def main() -> None:
    """Train a melanoma classifier on dermoscopic images and export it for dermq's workers.

    \b
    export DERMQ_HAM10000=/data/HAM10000
    dermq-train fit runs/first
    dermq-train evaluate runs/first
    dermq-train export runs/first models/mine --version 1
    """
    keep_freed_memory()


for _command in (fit, crossfit, serve, evaluate, robustness, card, export, recalibrate):
    main.add_command(_command)
