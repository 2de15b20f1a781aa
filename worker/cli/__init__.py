"""``dermq``: the operator's commands. Each module holds the commands of one subject."""

import os

import click

from worker import __version__
from worker.cli.audit import audit
from worker.cli.bench import bench
from worker.cli.check import check, reconcile
from worker.cli.demo import demo
from worker.cli.drift import challenge, drift
from worker.cli.error_handling import CommandGroup
from worker.cli.export import export
from worker.cli.feedback import audit_performance, feedback
from worker.cli.job_control import cancel, delete, pause, prune, resume, retry
from worker.cli.jobs import jobs, status, top, watch
from worker.cli.report import report
from worker.cli.serve import flower, migrate, sweep, up, worker
from worker.cli.submit import submit
from worker.cli.users import users

# Each command imports what it needs when it runs, so that `dermq --help` does not wait for OpenVINO and Celery.


@click.group(cls=CommandGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="dermq")
@click.option("--as", "actor", metavar="NAME", help="Your name for the audit log, where all use one account.")
def main(actor: str | None) -> None:
    """Score archives of dermoscopic images for melanoma risk.

    \b
    On one machine:  dermq up              in one terminal, then in another
                     dermq submit FOLDER --watch
                     dermq report 1 -o worklist.html

    Settings are environment variables DERMQ_…, listed in docs/settings.md. For research only, not a medical device.
    """
    if actor is not None:
        # As a setting, so that it is checked where the others are.
        os.environ["DERMQ_ACTOR"] = actor


for _command in (
    *(up, submit, jobs, status, watch, top, report, export),
    *(feedback, audit_performance, drift, challenge),
    *(pause, resume, cancel, retry, delete, prune),
    *(check, reconcile, audit, demo, bench),
    *(worker, sweep, flower, users, migrate),
):
    main.add_command(_command)
