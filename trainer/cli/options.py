"""The options of ``dermq-train fit``: one for each setting of a run, described by the docstring of `FitConfig`."""

import re
from dataclasses import fields
from typing import Any

import click


def config_options(command: Any) -> Any:
    """Decorate a command with an option for each field of the run's settings, with its default and its description."""
    from trainer.config import FitConfig

    described = _arguments(FitConfig.__doc__ or "")
    for field in reversed(fields(FitConfig)):
        flag = f"--{field.name.replace('_', '-')}"
        kind: dict[str, Any] = {"type": type(field.default)}
        if isinstance(field.default, bool):
            kind = {"is_flag": True}
        elif isinstance(field.default, tuple):
            kind = {"type": str, "multiple": True}
        # `trainer.presets.configure` takes the backbone's own size unless one is given.
        shown: bool | str = "that of the backbone" if field.name == "size" else True
        command = click.option(flag, default=field.default, show_default=shown, help=described.get(field.name), **kind)(
            command
        )
    return command


def _arguments(docstring: str) -> dict[str, str]:
    """Name and description of each entry under ``Args:``."""
    entries = re.findall(r"^ {8}(\w+): (.+?)(?=^ {8}\w+: |\Z)", docstring, re.MULTILINE | re.DOTALL)
    return {name: " ".join(text.split()).replace("`", "") for name, text in entries}
