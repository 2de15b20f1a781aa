"""How the commands of ``dermq-train`` end when they do not succeed: with a sentence, and an exit status."""

from typing import Any

import click

#: Errors whose text is for the person who trains; by name, since importing them imports TensorFlow.
_EXPECTED = {
    "BundleError",
    "CheckpointError",
    "DatasetError",
    "EngineError",
    "ExportError",
    "FileExistsError",
    "FileNotFoundError",
    "ModuleNotFoundError",
    "PermissionError",
    "RunError",
    "SplitError",
    "ValueError",
    "WeightsError",
}


class CommandGroup(click.Group):
    """Turns our errors into one line and exit status 2, and Ctrl-C into 130."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt:
            goes_on = context.invoked_subcommand == "fit"
            next_step = " The same command goes on after the last complete epoch." if goes_on else ""
            click.echo(f"dermq-train: interrupted.{next_step}", err=True)
            raise SystemExit(130) from None
        except Exception as error:
            if isinstance(error, ModuleNotFoundError) and error.name is not None:
                # In an environment for workers alone, as `make demo` sets it up.
                click.echo(
                    f"dermq-train: the package {error.name} is not installed. Training needs the extra 'trainer': "
                    "make dev-environment, or pip install 'dermq[trainer]'.",
                    err=True,
                )
                raise SystemExit(2) from None
            if type(error).__name__ in _EXPECTED:
                click.echo(f"dermq-train: {error}", err=True)
                raise SystemExit(2) from None
            raise
