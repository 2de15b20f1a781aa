"""The workers that answer through the broker, and the bundle that each of them scores with."""

from dataclasses import dataclass

from celery import Celery

from worker.inference.bundle_reference import BundleReference
from worker.queue.app import TELL_BUNDLE
from worker.queue.hints import BROKER_FAULTS
from worker.terminal import printable

#: Seconds that workers have to answer.
ANSWER_SECONDS = 3.0


def workers_answering(app: Celery, seconds: float = ANSWER_SECONDS) -> list[str]:
    """Names of the workers that answer in time. Empty when the broker is away."""
    try:
        replies = app.control.ping(timeout=seconds)
    except BROKER_FAULTS:
        return []
    return sorted(name for reply in replies for name in reply)


@dataclass(frozen=True, kw_only=True)
class WorkerAnswer:
    """What a worker says about itself.

    Args:
        bundle: None when it cannot read its own, or is of another version of dermq.
        engine: name and version, and the precision of the bundle. Empty when unknown.
        processes: that score.
        pids: numbers of the processes that run now.
    """

    bundle: BundleReference | None
    engine: str = ""
    processes: int = 0
    pids: frozenset[int] = frozenset()


def workers_answers(app: Celery, seconds: float = ANSWER_SECONDS) -> dict[str, WorkerAnswer]:
    """What each worker that answers in time says, by its name."""
    try:
        replies = app.control.broadcast(TELL_BUNDLE, reply=True, timeout=seconds) or []
    except BROKER_FAULTS:
        return {}
    answers = sorted((name, answer) for reply in replies for name, answer in reply.items())
    return {name: _understood(answer) for name, answer in answers}


def _understood(answer: object) -> WorkerAnswer:
    nothing = WorkerAnswer(bundle=None)
    if not isinstance(answer, dict):
        return nothing
    texts = [answer.get(name) for name in ("sha256", "name", "version", "engine")]
    processes, pids = answer.get("processes"), answer.get("pids")
    if not all(isinstance(text, str) for text in texts) or type(processes) is not int or not isinstance(pids, list):
        return nothing
    sha256, name, version, engine = map(str, texts)
    bundle = BundleReference(sha256=sha256, name=name, version=version)
    return WorkerAnswer(
        bundle=bundle,
        engine=printable(engine),
        processes=processes,
        pids=frozenset(pid for pid in pids if type(pid) is int),
    )
