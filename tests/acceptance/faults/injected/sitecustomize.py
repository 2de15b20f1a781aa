"""Faults inside a process: Python runs this file first wherever its folder is on PYTHONPATH, before anything of dermq.

The product has no hooks for its own fault tests. A fault test that needs a fault in the middle of a worker puts this
folder on that worker's path and names the fault in its environment; the functions below are wrapped when their module
is loaded.
"""

import ctypes
import functools
import importlib.abc
import importlib.machinery
import os
import select
import signal
import sys
import time
from pathlib import Path

#: Bytes that the poison takes which exhausts memory.
_EXHAUSTING = 4 * 1024**3


def _poison(data):
    """Act on what `faults.poison` has written behind a picture."""
    if data.endswith(b"fault:kill"):
        os.kill(os.getpid(), signal.SIGKILL)
    elif data.endswith(b"fault:exhaust"):
        bytearray(_EXHAUSTING)
    elif data.endswith(b"fault:loop-deaf"):
        # Like a decoder in C that never comes back to Python, where a soft time limit would be noticed.
        mutex, lock = ctypes.create_string_buffer(64), ctypes.CDLL(None).pthread_mutex_lock
        lock(mutex)
        lock(mutex)
    elif data.endswith(b"fault:hang"):
        # Like a share that is gone: the call waits in the kernel, and nobody will ever answer.
        os.read(os.pipe()[0], 1)
    elif data.endswith(b"fault:loop"):
        while True:
            time.sleep(1)


def _slow_and_poisoned(decode):
    seconds = float(os.environ.get("FAULT_SECONDS_PER_IMAGE", "0"))

    @functools.wraps(decode)
    def wrapped(data, *arguments):
        # Not `time.sleep`, which fails under the program faketime.
        select.select((), (), (), seconds)
        _poison(data)
        return decode(data, *arguments)

    return wrapped


def _slow_and_crashing(load_engine):
    """The first load of all, by whichever process, takes long and ends in a crash."""
    crashed = os.environ.get("FAULT_ENGINE_CRASHED")

    @functools.wraps(load_engine)
    def wrapped(*arguments, **options):
        if crashed and not Path(crashed).exists():
            time.sleep(float(os.environ["FAULT_ENGINE_SECONDS"]))
            Path(crashed).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return load_engine(*arguments, **options)

    return wrapped


def _repeated_and_slow(send_hints):
    """Every hint several times, a repetition right behind the hint; afterwards a rest, which slows a submitter down."""
    times = int(os.environ.get("FAULT_HINT_TIMES", "1"))
    seconds = float(os.environ.get("FAULT_SECONDS_PER_SENDING", "0"))

    @functools.wraps(send_hints)
    def wrapped(app, chunks, *, urgent):
        for _ in range(times):
            send_hints(app, chunks, urgent=urgent)
        time.sleep(seconds)

    return wrapped


def _impatient_broker(make_app):
    seconds = os.environ.get("FAULT_VISIBILITY_SECONDS")

    @functools.wraps(make_app)
    def wrapped(settings):
        app = make_app(settings)
        if seconds:
            options = app.conf.broker_transport_options
            options["visibility_timeout"], options["unacked_restore_interval"] = float(seconds), 1
        return app

    return wrapped


def _all_at_once(migrate):
    """Wait until as many processes stand here as the fault test starts."""
    folder, count = os.environ.get("FAULT_MEET_IN"), int(os.environ.get("FAULT_MEET", "1"))

    @functools.wraps(migrate)
    def wrapped(engine):
        if folder:
            Path(folder, str(os.getpid())).touch()
            while sum(1 for _ in Path(folder).iterdir()) < count:
                time.sleep(0.001)
        return migrate(engine)

    return wrapped


_WRAPPERS = {
    "worker.images.decode": ("decode_image", _slow_and_poisoned),
    "worker.inference.engines": ("load_engine", _slow_and_crashing),
    "worker.queue.hints": ("send_hints", _repeated_and_slow),
    "worker.queue.app": ("make_app", _impatient_broker),
    "db.schema": ("migrate", _all_at_once),
}


class _WrappingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules above as Python would, and wraps one function when they have been executed."""

    def find_spec(self, name, path, target=None):
        if name not in _WRAPPERS:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        function, wrapper = _WRAPPERS[name]
        execute = spec.loader.exec_module

        def exec_module(module):
            execute(module)
            setattr(module, function, wrapper(getattr(module, function)))

        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, _WrappingFinder())
