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
#: The bundle is left out: replaying its reference images loads an engine. So are the jobs: pages show them.
_COMPONENTS = ("database", "broker", "workers", "sweeper")


class SystemState:
    """Repeats the checks in a thread, so that no request waits for them.

    Args:
        settings: of this process.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.checks: list[CheckResult] = []
        self.workers: dict[str, WorkerAnswer] = {}
        #: When the last round ended, by a clock that only goes forward. None before the first.
        self.checked_at: float | None = None

    def start(self) -> None:
        """Begin."""
        # A daemon: it may be waiting for a broker that does not answer when the process ends.
        threading.Thread(target=self._run, daemon=True, name="dermq-system-state").start()

    def _run(self) -> None:
        app = make_app(self._settings)
        while True:
            try:
                self.workers = workers_answers(app)
                self.checks = list(run_checks(self._settings, only=_COMPONENTS))
                self.checked_at = time.monotonic()
            except Exception as error:
                # The pages say how old the last round is.
                log.error("the checks failed", error=type(error).__name__)
            time.sleep(_INTERVAL)
