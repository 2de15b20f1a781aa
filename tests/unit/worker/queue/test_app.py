"""The Celery application, and hints."""

import subprocess
import sys
from typing import Any

import pytest
from celery import Celery, signals
from celery.utils.dispatch import Signal

from worker.queue import hints
from worker.queue.app import make_app
from worker.queue.hints import send_hints
from worker.settings import Settings


def test_an_application_leaves_no_signal_receivers() -> None:
    """`dermq check` in a loop made one application after the other, and each stayed connected."""
    settings = Settings(broker_url="memory://")  # type: ignore[arg-type]

    def receivers() -> int:
        return sum(len(each.receivers or ()) for each in vars(signals).values() if isinstance(each, Signal))

    make_app(settings)
    before = receivers()
    for _ in range(5):
        make_app(settings)
    assert receivers() == before


@pytest.mark.parametrize("error", [KeyError("task"), ValueError("no such thing")])
def test_a_bug_while_hints_are_sent_is_not_blamed_on_the_broker(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app(Settings(broker_url="memory://"))  # type: ignore[arg-type]

    def broken(self: Celery, *arguments: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(Celery, "send_task", broken)
    with pytest.raises(type(error)):
        send_hints(app, {1: 1}, urgent=False)
    assert not any(issubclass(type(error), kind) for kind in hints.BROKER_FAULTS)


@pytest.mark.parametrize(
    "module",
    [
        "worker.queue.app",
        "worker.queue.hints",
        "worker.queue.inspect",
        "worker.queue.sweeper",
        "worker.intake.submission",
        "worker.monitor.web.server",
        "worker.monitor.web.api",
        "worker.monitor.web.metrics",
    ],
)
def test_it_loads_neither_opencv_nor_an_engine(module: str) -> None:
    """Submit, sweeper and Flower need neither, and a container's health check would wait for them."""
    heavy = ["cv2", "openvino", "tensorflow", "worker.scoring.chunk", "worker.images.decode"]
    script = f"import sys, {module}; print(sorted(set({heavy}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
