"""How the commands of ``dermq`` end when they fail: with a sentence and an exit status."""

import errno
import sys
from contextlib import suppress
from typing import Any

import click
from sqlalchemy.exc import SQLAlchemyError

from db.session import DatabaseUrlError, UnknownSchemaError
from worker.errors import DermqError, SubmissionInterruptedError
from worker.settings import load_settings
from worker.terminal import printable
from worker.url_redaction import without_password

#: Options that were removed, with the reason.
_REMOVED_OPTIONS = {"--failed": "`dermq retry` always retries failed images, and only those. Leave it out."}

#: Errors of a full or broken disk on writing.
_WRITING_FAILED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class CommandGroup(click.Group):
    """Prints dermq's errors as one line. Exit status 2: the person can fix it; 3: the database failed."""

    def invoke(self, context: click.Context) -> Any:
        """Run a command and translate its errors."""
        try:
            return super().invoke(context)
        except click.NoSuchOption as error:
            if advice := _REMOVED_OPTIONS.get(error.option_name):
                raise click.UsageError(f"The option {error.option_name} is gone. {advice}", error.ctx) from None
            raise
        except (DermqError, DatabaseUrlError, UnknownSchemaError) as error:
            click.echo(f"dermq: {printable(str(error), lines=True)}", err=True)
            raise SystemExit(130 if isinstance(error, SubmissionInterruptedError) else 2) from None
        except SQLAlchemyError as error:
            line = without_password(str(error).splitlines()[0], load_settings().resolved_database_url())
            click.echo(f"dermq: the database failed: {printable(line)}. Run `dermq check` for the cause.", err=True)
            raise SystemExit(3) from None
        except KeyboardInterrupt:
            raise SystemExit(130) from None
        except OSError as error:
            # An error that names a file comes from opening it: that is a fault of dermq.
            if error.filename is not None or error.errno not in _WRITING_FAILED:
                raise
            # Otherwise Python flushes once more at its end, and prints the same error in its own words.
            with suppress(OSError, AttributeError):
                sys.stdout.close()
            click.echo(f"dermq: the output cannot be written: {error.strerror}.", err=True)
            raise SystemExit(2) from None
