"""How fast an archive is recorded: listing a folder, reading a manifest, and a folder into SQLite, without a broker.

python benchmarks/intake.py [FILES]
"""

import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

from db.schema import migrate
from db.session import open_database
from worker.inference.bundle import load_bundle
from worker.intake import submission
from worker.intake.scan_report import ScanReport
from worker.intake.sources.folder import walk_folder
from worker.intake.sources.manifest import read_manifest
from worker.settings import shipped_bundle


def main() -> None:
    """Measure and print."""
    files = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory(prefix="dermq-intake-") as name:
        archive = Path(name) / "archive"
        rows = ["path,lesion_id,patient_ref,age,sex,site"]
        for number in range(files):
            path = archive / f"{number // 1_000:05d}" / f"{number:08d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            rows.append(f"{path.relative_to(archive)},L{number // 2},P{number // 5},55,female,back")
        manifest = Path(name) / "manifest.csv"
        manifest.write_text("\n".join(rows) + "\n")
        _print("folder", "listed", files, lambda: sum(1 for _ in walk_folder(archive, ScanReport())))
        _print("manifest", "checked and read", files, lambda: sum(1 for _ in read_manifest(manifest, archive)))
        database = open_database(f"sqlite:///{name}/dermq.db")
        migrate(database)
        what = submission.Submission(source=archive, root=None, policy="youden", urgent=False, chunk_size=128)
        bundle = load_bundle(shipped_bundle())
        with mock.patch.object(submission, "send_hints"):
            _print(
                "SQLite",
                "recorded",
                files,
                lambda: submission.submit(what, database=database, app=mock.Mock(), bundle=bundle).images,
            )
        database.dispose()


def _print(name: str, what: str, files: int, work) -> None:  # type: ignore[no-untyped-def]
    started = time.perf_counter()
    assert work() == files
    print(f"{name:<10}{files / (time.perf_counter() - started):10,.0f} a second {what}")


if __name__ == "__main__":
    main()
