"""How the commands of ``dermq-train`` end when they fail: with a sentence and an exit status."""

import os
import tempfile
import traceback
from typing import Any, NoReturn

import click

from trainer.errors import TrainerError
from worker.errors import DermqError
from worker.terminal import printable

#: Commands that were renamed or removed.
_GONE_COMMANDS = {
    "stress": "The command stress is now called robustness.",
    "average": "The command average is gone: averaging weights gave no better model (docs/experiments.md).",
}
#: Options that were renamed.
_RENAMED_OPTIONS = {
    "--gamma": "--focal-gamma",
    "--alpha": "--focal-alpha",
    "--draws": "--samples-per-epoch",
    "--keep": "--checkpoint",
    "--proven-nevi": "--histology-nevi-share",
    "--also": "--left-out-run",
    "--seeds": "--seed-run",
    "--quick": "--skip-robustness",
}
#: Packages of the extra 'trainer'. An environment for workers lacks them.
_TRAINER_PACKAGES = {"jinja2", "keras", "matplotlib", "nncf", "pandas", "scipy", "sklearn", "tensorflow"}


class CommandGroup(click.Group):
    """Prints the project's own errors in one line with exit status 2, and Ctrl-C with 130.

    Any other error is a bug: its traceback goes into a file that the message names, with exit status 1.
    """

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command. A renamed one is refused with its new name."""
        if args and (sentence := _GONE_COMMANDS.get(args[0])):
            raise click.UsageError(sentence, context)
        return super().resolve_command(context, args)

    def invoke(self, context: click.Context) -> Any:
        """Run a command and translate its errors."""
        try:
            return super().invoke(context)
        except click.NoSuchOption as error:
            if new := _RENAMED_OPTIONS.get(error.option_name):
                raise click.UsageError(f"The option {error.option_name} is now called {new}.", error.ctx) from None
            raise
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            resumable = context.invoked_subcommand == "fit"
            next_step = " The same command continues after the last complete epoch." if resumable else ""
            click.echo(f"dermq-train: interrupted.{next_step}", err=True)
            raise SystemExit(130) from None
        except (TrainerError, DermqError) as error:
            click.echo(f"dermq-train: {printable(str(error), lines=True)}", err=True)
            raise SystemExit(2) from None
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in _TRAINER_PACKAGES:
                _report_bug(error)
            click.echo(
                f"dermq-train: the package {error.name} is not installed. Training needs the extra 'trainer': run make "
                "dev-environment, or pip install 'dermq[trainer]'.",
                err=True,
            )
            raise SystemExit(2) from None
        except Exception as error:
            _report_bug(error)


def _report_bug(error: Exception) -> NoReturn:
    """Keep the traceback in a file, so that hours of training do not end in one line.

    Raises:
        SystemExit: always, with status 1.
    """
    descriptor, path = tempfile.mkstemp(prefix="dermq-train-error-", suffix=".txt")
    with os.fdopen(descriptor, "w") as file:
        traceback.print_exception(error, file=file)
    summary = printable(f"{type(error).__name__}: {error}".splitlines()[0])
    click.echo(f"dermq-train: unexpected error, {summary}. The traceback is in {path}; please report it.", err=True)
    raise SystemExit(1) from None
