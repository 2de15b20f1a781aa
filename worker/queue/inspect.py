"""The workers that answer through the broker, and the bundle that each of them scores with."""

from celery import Celery

from worker.inference.bundle_reference import BundleReference
from worker.queue.app import TELL_BUNDLE
from worker.queue.hints import BROKER_FAULTS

#: Seconds that workers have to answer.
ANSWER_SECONDS = 3.0


def workers_answering(app: Celery, seconds: float = ANSWER_SECONDS) -> list[str]:
    """Names of the workers that answer in time. Empty when the broker is away."""
    try:
        replies = app.control.ping(timeout=seconds)
    except BROKER_FAULTS:
        return []
    return sorted(name for reply in replies for name in reply)


def bundles_of_workers(app: Celery, seconds: float = ANSWER_SECONDS) -> dict[str, BundleReference | None]:
    """The bundle of each worker that answers in time. None for one that cannot read its own, or of another version."""
    try:
        replies = app.control.broadcast(TELL_BUNDLE, reply=True, timeout=seconds) or []
    except BROKER_FAULTS:
        return {}
    answers = sorted((name, answer) for reply in replies for name, answer in reply.items())
    return {name: _understood(answer) for name, answer in answers}


def _understood(answer: object) -> BundleReference | None:
    if not isinstance(answer, dict) or set(answer) != {"sha256", "name", "version"}:
        return None
    return BundleReference(**answer) if all(isinstance(value, str) for value in answer.values()) else None
