"""Arguments and options that several commands share, and what they print while a person waits."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

#: A file or folder.
PATH = click.Path(path_type=Path)


def dataset_option(*, required: bool = True) -> Callable[[Command], Command]:
    """The option ``--dataset``."""
    return click.option(
        "--dataset",
        envvar="DERMQ_HAM10000",
        show_envvar=True,
        required=required,
        multiple=True,
        type=PATH,
        help="Folder of HAM10000 in its published layout, or of another data set (docs/data-sets.md). May be repeated."
        + ("" if required else " Not needed with --external."),
    )


def cache_option(text: str) -> Callable[[Command], Command]:
    """The option ``--cache``."""
    return click.option("--cache", type=PATH, default=Path(".cache/dermq"), show_default=True, help=text)


def say(line: str) -> None:
    """Tell the person who waits which step runs."""
    click.echo(f"{line} ...", err=True)
