"""The state of the system for every page: the checks of `dermq check` that are cheap, repeated in the background."""

import threading
import time

from worker.logging import get_logger
from worker.monitor.health import CheckResult, run_checks
from worker.queue.app import make_app
from worker.queue.inspect import WorkerAnswer, workers_answers
from worker.settings import Settings

log = get_logger(__name__)

#: Seconds between two rounds.
_INTERVAL = 5.0
#: Age in seconds from which the results of a round are too old.
_STALE = 30.0
#: The bundle is left out: replaying its reference images loads an engine. So are the jobs: pages show them.
_COMPONENTS = ("database", "broker", "workers", "sweeper")


class SystemState:
    """Repeats the checks in a thread, so that no request waits for them.

    Args:
        settings: of this process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._checks: list[CheckResult] = []
        self.workers: dict[str, WorkerAnswer] = {}
        #: When the last round ended, by a clock that only goes forward.
        self._checked_at = time.monotonic()

    def start(self) -> None:
        """Begin."""
        # A daemon: it may be waiting for a broker that does not answer when the process ends.
        threading.Thread(target=self._run, daemon=True, name="dermq-system-state").start()

    def current(self) -> list[CheckResult]:
        """The results of the last round, and that it is too old, if it is. Empty before the first."""
        age = time.monotonic() - self._checked_at
        if age < _STALE:
            return self._checks
        text = (
            f"The checks have not ended for {age:.0f} seconds. The database or the broker is slow, or a frozen process "
            "holds the lock of the database. Run `dermq check`."
        )
        return [CheckResult(component="checks", ok=False, text=text), *self._checks]

    def _run(self) -> None:
        app = make_app(self._settings)
        while True:
            try:
                self.workers = workers_answers(app)
                self._checks = list(run_checks(self._settings, only=_COMPONENTS, app=app, answers=self.workers))
                self._checked_at = time.monotonic()
            except Exception as error:
                # The pages say how old the last round is.
                log.error("the checks failed", error=type(error).__name__)
            time.sleep(_INTERVAL)
