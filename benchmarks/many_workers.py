"""Many worker processes against one PostgreSQL and one broker: where does it bend?

    python benchmarks/many_workers.py [--most 32] [--seconds-an-image 0.004]

The workers read no image and infer nothing. With ``--seconds-an-image`` each sleeps instead, as if a processor of its
own did the work, so that this machine can stand for many. Prints images per second for 1, 2, 4 … processes, and the
ratio to that many times the first.
"""

import argparse
import tempfile
from pathlib import Path

from running import postgres_url, running


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=32, help="most worker processes (32)")
    parser.add_argument("--seconds-an-image", type=float, default=0.0, help="sleep for each image (0)")
    arguments = parser.parse_args()
    first = 0.0
    print("processes    images/s   ratio   processor, ms an image")
    processes = 1
    while processes <= arguments.most:
        with tempfile.TemporaryDirectory(prefix="dermq-many-") as name, postgres_url(True) as url:
            home = Path(name)
            with running(
                home,
                concurrency=processes,
                database_url=url,
                noop=True,
                noop_seconds=arguments.seconds_an_image,
            ) as system:
                images = 4_000 + 3_000 * min(processes, 8)
                for number, size in enumerate((200 * processes, images)):
                    manifest = home / f"{number}.csv"
                    manifest.write_text("path\n" + "".join(f"{index}.jpg\n" for index in range(size)))
                    before = system.cpu_seconds()
                    seconds, counts = system.wait(system.submit(manifest, home))
                    assert counts.completed == size
                spent = system.cpu_seconds() - before
        rate = images / seconds
        first = first or rate
        print(
            f"{processes:9} {rate:11,.0f} {rate / (first * processes):7.2f} {1000 * spent / images:14.3f}", flush=True
        )
        processes *= 2


if __name__ == "__main__":
    main()
