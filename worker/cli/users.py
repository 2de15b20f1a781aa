"""``dermq users``: who may use Flower."""

import sys

import click

from worker.errors import DermqError
from worker.settings import load_settings


@click.group(short_help="Manage the accounts of Flower.")
def users() -> None:
    """Manage the accounts of Flower. Their passwords are kept as hashes, in a file of the home folder."""


@users.command(short_help="Add an account, or give it another role or password.")
@click.argument("name")
@click.option(
    "--role",
    type=click.Choice(["viewer", "operator"]),
    default="viewer",
    show_default=True,
    help="What it may do: see, or also control jobs.",
)
@click.option("--oauth", is_flag=True, help="Without a password: NAME is the address of somebody who uses OAuth.")
def add(name: str, role: str, oauth: bool) -> None:
    """Add the account NAME, or replace it. A viewer sees jobs and workers; an operator also controls jobs.

    The password is asked for twice. Without a terminal, it is the first line of standard input:

    \b
    dermq users add anna --role operator < password-file
    """
    from worker.monitor.web.accounts import Role
    from worker.monitor.web.server import users_of

    users_of(load_settings()).add(name, Role(role), None if oauth else _password(name))
    click.echo(f"{name} may use Flower as {role}. It takes effect at once.")


@users.command("list", short_help="List the accounts.")
def list_accounts() -> None:
    """List the accounts with their roles."""
    from worker.monitor.web.server import users_of

    accounts = users_of(load_settings()).accounts()
    for account in accounts:
        click.echo(f"{account.name}  {account.role}")
    if not accounts:
        click.echo("There are no accounts yet. Add one: dermq users add NAME --role operator", err=True)


@users.command(short_help="Remove an account.")
@click.argument("name")
def remove(name: str) -> None:
    """Remove the account NAME. A Flower that runs refuses it at once."""
    from worker.monitor.web.server import users_of

    if not users_of(load_settings()).remove(name):
        raise DermqError(f"There is no account {name}. `dermq users list` shows all.")
    click.echo(f"{name} was removed.")


def _password(name: str) -> str:
    if sys.stdin.isatty():
        return str(click.prompt(f"Password of {name}", hide_input=True, confirmation_prompt=True))
    line = sys.stdin.readline().rstrip("\n")
    if not line:
        raise DermqError("Standard input holds no password. Write it there as one line, or run this on a terminal.")
    return line
