"""Flower, started from here so that its password stays off the command line and its defaults are safe ones."""

import logging
import os
import signal
import sys

from celery import Celery

from worker.errors import SettingsError
from worker.settings import Settings

#: Flower's user.
USER = "dermq"
#: Tasks that Flower remembers, at about 4.5 KiB each.
_REMEMBERED_TASKS = 20_000


def run_flower(app: Celery, settings: Settings, port: int) -> None:
    """Serve Flower until SIGTERM or SIGINT.

    Args:
        app: the Celery application.
        settings: for address and password.
        port: to listen on.

    Raises:
        SettingsError: no password is set, for Flower is never served without one; or the port is taken.
    """
    if settings.flower_password is None or not settings.flower_password.get_secret_value():
        raise SettingsError("Flower needs a password: set DERMQ_FLOWER_PASSWORD. `dermq up` draws one by itself.")
    # Importing it defines its options, under names that no other program of ours should get.
    from flower.app import Flower
    from flower.command import extract_settings, setup_logging
    from flower.urls import settings as web_settings
    from tornado.options import options

    options.address, options.port = settings.flower_address, port
    options.basic_auth = [f"{USER}:{settings.flower_password.get_secret_value()}"]
    # To look at, not to control: pausing and cancelling act on SQL, where an audit can see them.
    options.read_only = True
    options.max_tasks = _REMEMBERED_TASKS
    extract_settings()
    setup_logging()
    flower = Flower(capp=app, options=options, **web_settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        flower.start_http_server()
    except OSError as error:
        raise SettingsError(
            f"Flower cannot listen on {settings.flower_address}:{port}: {error.strerror}. Where it runs already "
            "(`dermq up` starts one), use that; else set DERMQ_FLOWER_PORT to a free port."
        ) from None
    try:
        flower.start()
    except (KeyboardInterrupt, SystemExit):
        # Not `flower.stop()` and a return: its threads may wait for a broker that is gone for minutes, and Python waits
        # for them. Flower keeps nothing that would be lost.
        logging.shutdown()
        os._exit(0)
