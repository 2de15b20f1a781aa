"""Flower, started from here so that its password is not on the command line and its settings are safe."""

import logging
import os
import signal
import sys

from celery import Celery

from worker.errors import SettingsError
from worker.settings import Settings

#: Flower's user.
USER = "dermq"
#: Tasks that Flower keeps in memory, at about 4.5 KiB each.
_MAX_TASKS = 20_000


def run_flower(app: Celery, settings: Settings, port: int) -> None:
    """Serve Flower until SIGTERM or SIGINT.

    Args:
        app: the Celery application.
        settings: give the address and the password.
        port: to listen on.

    Raises:
        SettingsError: there is no password, or the port is taken.
    """
    if settings.flower_password is None or not settings.flower_password.get_secret_value():
        raise SettingsError("Flower needs a password. Set DERMQ_FLOWER_PASSWORD; `dermq up` makes one by itself.")
    # Here: the import defines its options, which no other process should get.
    from flower.app import Flower
    from flower.command import extract_settings, setup_logging
    from flower.urls import settings as web_settings
    from tornado.options import options

    options.address, options.port = settings.flower_address, port
    options.basic_auth = [f"{USER}:{settings.flower_password.get_secret_value()}"]
    # Jobs are controlled through SQL, where the audit log records it.
    options.read_only = True
    options.max_tasks = _MAX_TASKS
    extract_settings()
    setup_logging()
    flower = Flower(capp=app, options=options, **web_settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        flower.start_http_server()
    except OSError as error:
        raise SettingsError(
            f"Flower cannot listen on {settings.flower_address}:{port}: {error.strerror}. If a Flower runs there "
            "already (`dermq up` starts one), use it; else set DERMQ_FLOWER_PORT to a free port."
        ) from None
    try:
        flower.start()
    except (KeyboardInterrupt, SystemExit):
        # Not `flower.stop()`: its threads may wait minutes for an unreachable broker, and Python waits for them. Flower
        # has nothing to save.
        logging.shutdown()
        os._exit(0)
