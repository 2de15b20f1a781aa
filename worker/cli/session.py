"""What every command on jobs needs: the checked database, and the name of the person for the audit log."""

import os
import pwd
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import click

from worker.settings import load_settings

if TYPE_CHECKING:
    from sqlalchemy import Engine


#: Characters of a name that the audit log holds.
_LONGEST = 200


class _JobNumber(click.IntRange):
    name = "job number"


#: Range of a job's id in the database.
JOB_NUMBER = _JobNumber(1, 2**63 - 1)


def current_actor() -> str:
    """Account and host of the person who runs this command, for the audit log; and a name, if one was given.

    The account stays beside the name, which nobody has checked.
    """
    number = os.getuid()
    try:
        # Not `getpass.getuser`, which trusts environment variables.
        account = pwd.getpwuid(number).pw_name
    except KeyError:
        account = f"uid {number}"
    place = f"{account}@{socket.gethostname()}"
    name = load_settings().actor
    return f"{name} ({place})"[:_LONGEST] if name else place


@contextmanager
def tidied_when_ended() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that unfinished files are removed."""

    def leave(number: int, _frame: object) -> NoReturn:
        raise SystemExit(128 + number)

    usual = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)


def open_checked_database() -> "Engine":
    """Open the database, if it exists and has the right schema.

    Raises:
        DatabaseError: it cannot be used. The text says what to do.
    """
    from db.session import open_database
    from worker.database_check import check_database

    settings = load_settings()
    check_database(settings)
    return open_database(settings.resolved_database_url())
