"""How long a worker takes to be ready, and how much memory its processes take after some hundred images.

python benchmarks/start.py /data/HAM10000
"""

import sys
import tempfile
import time
from pathlib import Path

from running import running, with_children

IMAGES, PROCESSES = 500, 2


def main() -> None:
    """Measure and print."""
    root = Path(sys.argv[1])
    files = sorted(root.rglob("*.jpg"))[:IMAGES]
    with tempfile.TemporaryDirectory(prefix="dermq-start-") as name:
        home = Path(name)
        started = time.monotonic()
        with running(home, concurrency=PROCESSES) as system:
            while b" ready." not in (home / "log").read_bytes():
                time.sleep(0.02)
            every, ready = time.monotonic() - started, time.time()
            (worker,) = system.workers
            # Linux makes this folder when the process starts.
            alone = ready - Path(f"/proc/{worker.pid}").stat().st_ctime
            print(f"ready      {alone:.1f} s after its process started, {every:.1f} s with broker and migration")
            manifest = home / "m.csv"
            manifest.write_text("path\n" + "".join(f"{file.relative_to(root)}\n" for file in files))
            system.wait(system.submit(manifest, root))
            for number, pid in enumerate(with_children(worker.pid)):
                status = Path(f"/proc/{pid}/status").read_text()
                most = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
                print(f"{'child ' if number else 'parent'}     {int(most) / 1024:.0f} MB at most")


if __name__ == "__main__":
    main()
