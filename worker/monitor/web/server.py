"""Flower with dermq's pages, started from here so that no secret is on the command line and its settings are safe."""

import ipaddress
import logging
import os
import re
import signal
import ssl
import sys
from pathlib import Path

from celery import Celery

from db.session import open_database
from worker.errors import SettingsError
from worker.logging import get_logger
from worker.monitor.web.accounts import USERS_FILE, Users
from worker.monitor.web.sign_in import SignIn
from worker.monitor.web.system_state import SystemState
from worker.settings import Settings

log = get_logger(__name__)

#: Tasks that Flower keeps in memory, at about 4.5 KiB each.
_MAX_TASKS = 20_000
#: Seconds that a page waits for SQLite's one writer.
_BUSY_SECONDS = 3.0
#: Job and chunk are in the arguments, and what came of them in the result.
_TASK_COLUMNS = "args,result,state,received,runtime,worker,uuid"
#: The query of an address in a log line.
_QUERY = re.compile(r"\?\S*")
#: Flower's variables for OAuth, which this passes on. All other settings of Flower are dermq's.
_OAUTH = ("auth", "auth_provider", "oauth2_key", "oauth2_secret", "oauth2_redirect_uri")


def users_of(settings: Settings) -> Users:
    """The accounts of Flower at this place."""
    return Users(settings.flower_users or settings.home / USERS_FILE)


def run_flower(app: Celery, settings: Settings, port: int) -> None:
    """Serve Flower until SIGTERM or SIGINT.

    Args:
        app: the Celery application.
        settings: give the address, the accounts and the certificate.
        port: to listen on.

    Raises:
        SettingsError: nobody could sign in, the certificate cannot be used, or the port is taken.
    """
    password = settings.flower_password.get_secret_value() if settings.flower_password is not None else ""
    users, oauth = users_of(settings), _oauth_options()
    if not password and not users.accounts() and not oauth:
        raise SettingsError(
            "Nobody could sign in to Flower. Set DERMQ_FLOWER_PASSWORD, add an account with `dermq users add NAME`, or "
            "set up OAuth (docs/install-server.md). `dermq up` makes a password by itself."
        )
    # Here: the imports define Flower's options, which no other process should get.
    from flower.app import Flower
    from flower.command import extract_settings, setup_logging
    from flower.urls import settings as web_settings
    from tornado.options import options

    from worker.monitor.web.handlers import Monitor, install

    for name, value in oauth.items():
        setattr(options, name, value)
    options.address, options.port = settings.flower_address, port
    options.url_prefix = settings.flower_url_prefix.strip("/")
    # Flower takes part of its protection from this option. The accounts are checked by `SignIn`, and nobody has this
    # one.
    options.basic_auth = [] if oauth else ["\0"]
    # Jobs are controlled through SQL, where the audit log records it.
    options.read_only = True
    options.max_tasks = _MAX_TASKS
    options.xheaders = settings.flower_behind_proxy
    options.tasks_columns = _TASK_COLUMNS
    options.certfile, options.keyfile = _certificate(settings)
    monitor = Monitor(
        settings=settings,
        database=open_database(settings.resolved_database_url(), busy_seconds=_BUSY_SECONDS),
        app=app,
        sign_in=SignIn(users=users, password=password, read_only=settings.flower_read_only),
        state=SystemState(settings),
    )
    install(monitor)
    extract_settings()
    setup_logging()
    for name in ("tornado.general", "tornado.access", "tornado.application"):
        logging.getLogger(name).addFilter(_without_query)
    flower = Flower(capp=app, options=options, dermq=monitor, **web_settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        flower.start_http_server()
    except OSError as error:
        raise SettingsError(
            f"Flower cannot listen on {settings.flower_address}:{port}: {error.strerror}. If a Flower runs there "
            "already (`dermq up` starts one), use it; else set DERMQ_FLOWER_PORT to a free port."
        ) from None
    if options.certfile is None and not _is_loopback(settings.flower_address):
        log.warning("Flower is reached over the network without TLS; passwords can be read on the way")
    monitor.state.start()
    try:
        flower.start()
    except (KeyboardInterrupt, SystemExit):
        # Not `flower.stop()`: its threads may wait minutes for an unreachable broker, and Python waits for them. Flower
        # has nothing to save.
        logging.shutdown()
        os._exit(0)


def _oauth_options() -> dict[str, str]:
    """Flower's own variables for OAuth, such as ``FLOWER_AUTH``. Empty unless that one is set."""
    given = {name: os.environ.get(f"FLOWER_{name.upper()}", "") for name in _OAUTH}
    return {name: value for name, value in given.items() if value} if given["auth"] else {}


def _certificate(settings: Settings) -> tuple[str | None, str | None]:
    files = (settings.flower_certificate, settings.flower_key)
    if all(file is None for file in files):
        return None, None
    for name, file in zip(("DERMQ_FLOWER_CERTIFICATE", "DERMQ_FLOWER_KEY"), files, strict=True):
        if file is None:
            raise SettingsError(f"{name} is missing: TLS needs a certificate and its key.")
        if not _is_readable(file):
            raise SettingsError(f"{name} names no file that this account can read.")
    try:
        # An empty password: without one, the terminal would be asked.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(str(files[0]), str(files[1]), password="")
    except (OSError, ValueError) as error:
        raise SettingsError(
            f"DERMQ_FLOWER_CERTIFICATE and DERMQ_FLOWER_KEY cannot be used: {type(error).__name__}. They must be a "
            "certificate and its key without a password, as PEM."
        ) from None
    return str(files[0]), str(files[1])


def _without_query(record: logging.LogRecord) -> bool:
    """Cut the query of an address off: somebody may have searched for a name. For a logger's filter."""
    record.msg, record.args = _QUERY.sub("?…", record.getMessage()), ()
    return True


def _is_readable(file: Path) -> bool:
    return file.is_file() and os.access(file, os.R_OK)


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return address == "localhost"
