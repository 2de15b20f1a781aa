"""The options of ``dermq-train fit``: one for each setting of a run, with its default and description."""

from typing import Any, Literal, get_args, get_origin

import click


def config_options(command: Any) -> Any:
    """Decorate a command with an option for each field of `trainer.config.RunConfig`."""
    from trainer.config import RunConfig

    for name, field in reversed(RunConfig.model_fields.items()):
        kind: dict[str, Any] = {"type": type(field.default)}
        if get_origin(field.annotation) is Literal:
            kind = {"type": click.Choice(get_args(field.annotation))}
        elif isinstance(field.default, bool):
            kind = {"is_flag": True}
        elif isinstance(field.default, tuple):
            kind = {"type": str, "multiple": True}
        # `trainer.presets.configure` takes the backbone's own size unless one is given.
        shown: bool | str = "that of the backbone" if name == "size" else True
        flag = f"--{name.replace('_', '-')}"
        command = click.option(flag, default=field.default, show_default=shown, help=field.description, **kind)(command)
    return command
