"""What queue and SQL cost an image: a worker that reads no image and infers nothing.

    python benchmarks/overhead.py [IMAGES] [--postgres]

Prints images per second of one worker process, and the processor time of that worker, and of the submission, for an
image. The first job warms up and is not counted.
"""

import argparse
import tempfile
import time
from pathlib import Path

from running import postgres_url, running

#: Images of the job that warms up.
_WARM_UP = 2_000


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=int, nargs="?", default=40_000, help="images of the job (40000)")
    parser.add_argument("--postgres", action="store_true", help="a PostgreSQL server instead of SQLite")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="dermq-overhead-") as name, postgres_url(arguments.postgres) as url:
        home = Path(name)
        with running(home, concurrency=1, database_url=url, noop=True) as system:
            system.wait(system.submit(_manifest(home, "warm.csv", _WARM_UP), home))
            before = system.cpu_seconds()
            submitted, processor = time.perf_counter(), time.process_time()
            job = system.submit(_manifest(home, "large.csv", arguments.images), home)
            submitted, processor = time.perf_counter() - submitted, time.process_time() - processor
            seconds, counts = system.wait(job)
            spent = system.cpu_seconds() - before
    assert counts.completed == arguments.images
    print(f"{'PostgreSQL' if arguments.postgres else 'SQLite'}, one worker process, {arguments.images:,} images")
    for who, wall, cpu in (("worker", seconds, spent), ("submission", submitted, processor)):
        rate, cost = arguments.images / wall, 1000 * cpu / arguments.images
        print(f"{who:<12}{rate:8,.0f} images/s, {cost:.3f} ms of a processor an image")


def _manifest(home: Path, name: str, images: int) -> Path:
    path = home / name
    path.write_text("path\n" + "".join(f"{number}.jpg\n" for number in range(images)))
    return path


if __name__ == "__main__":
    main()
