"""Memory and speed of exports: does either grow with the job?

    python benchmarks/exports.py 100000 1000000

Rows are made up by SQL, on SQLite; each export runs in a process of its own, as a user runs it.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scale import prepare

KINDS = (
    ("csv",),
    ("csv", "--ranked"),
    ("csv", "--worklist"),
    ("jsonl",),
    ("parquet",),
    ("fhir",),
    ("fhir", "--with-references"),
)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", type=int, nargs="+", metavar="N", help="images of a job")
    print(f"{'images':>9} {'format':24} {'rows/s':>9} {'memory':>9}")
    for images in parser.parse_args().images:
        with tempfile.TemporaryDirectory(prefix="dermq-exports-") as name:
            folder = Path(name)
            url = f"sqlite:///{folder}/dermq.db"
            subject = prepare(url, images, folder)
            environment = os.environ | {"DERMQ_DATABASE_URL": url, "DERMQ_HOME": name}
            for kind in KINDS:
                command = [Path(sys.executable).parent / "dermq", "export", str(subject.job), "--format", *kind]
                started = time.perf_counter()
                # A process between, whose children's greatest memory is that of the one export.
                code = (
                    "import resource, subprocess, sys; "
                    "subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL); "
                    "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
                )
                done = subprocess.run(
                    [sys.executable, "-c", code, *command, "-o", folder / "export"],
                    env=environment, check=True, capture_output=True, text=True,
                )  # fmt: skip
                rate = images / (time.perf_counter() - started)
                print(f"{images:9,} {' '.join(kind):24} {rate:9,.0f} {int(done.stdout) / 1024:6.0f} MB", flush=True)
                (folder / "export").unlink()


if __name__ == "__main__":
    main()
