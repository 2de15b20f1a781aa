"""While a job runs, workers are killed and Redis is emptied: the job finishes, each image scored once."""

import json
import os
import signal

import redis

from tests.acceptance.conftest import (
    RunningSystem,
    ended_images,
    predictions_of,
    processes_of,
    until,
    worker_processes,
)

IMAGES = 600


def _broker(system: RunningSystem) -> redis.Redis:
    url = json.loads((system.home / "run.json").read_text())["broker_url"]
    return redis.Redis.from_url(url)


def test_killed_workers_and_a_flushed_redis_lose_nothing(system: RunningSystem, archive) -> None:
    folder = archive(IMAGES)
    undisturbed = int(system.dermq("submit", folder, "--force", "--watch").stdout)
    expected = predictions_of(system, undisturbed)
    assert len(expected) == IMAGES

    # Forced, or the second job would take over what the first has scored.
    job = int(system.dermq("submit", folder, "--force").stdout)
    until(lambda: ended_images(system) > IMAGES + 20, "the second job is under way")
    child = worker_processes(system)[-1]
    os.kill(child, signal.SIGKILL)
    with _broker(system) as broker:
        broker.flushall()
        assert broker.llen("dermq:bulk") == 0
    until(lambda: ended_images(system) > IMAGES + 150, "scoring goes on after a killed child and FLUSHALL")
    main = worker_processes(system)[0]
    os.kill(main, signal.SIGKILL)
    ended_at_kill = ended_images(system)
    assert ended_at_kill < 2 * IMAGES, "the job was over before the worker was killed: the test proves nothing"
    system.dermq("watch", str(job))

    assert "the books are right" in system.dermq("reconcile", str(job)).stdout
    assert "finished" in system.dermq("status", str(job)).stdout
    assert predictions_of(system, job) == expected
    assert "part died" in _everything_logged_by_up(system)


def _everything_logged_by_up(system: RunningSystem) -> str:
    system.process.send_signal(signal.SIGTERM)
    output, _ = system.process.communicate(timeout=60)
    return output


def test_jobs_wait_for_a_broker_that_is_down(system: RunningSystem, archive) -> None:
    """The broker dies before the submission: the job is taken, and begins by itself when the broker is back."""
    broker = next(pid for pid, command in processes_of(system.home).items() if "-server" in command.split()[0])
    os.kill(broker, signal.SIGSTOP)
    try:
        taken = system.dermq("submit", archive(40))
    finally:
        os.kill(broker, signal.SIGKILL)
    assert "begins by itself" in taken.stderr
    system.dermq("watch", taken.stdout.strip())
    assert len(predictions_of(system, int(taken.stdout))) == 40
