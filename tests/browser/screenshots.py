"""Make the pictures of the documents: `python -m tests.browser.screenshots docs/images`. Synthetic archives only."""

import os
import re
import signal
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.acceptance.conftest import RunningSystem, running_system
from tests.browser.test_flower_in_a_browser import CHROMIUM
from tests.browser.test_jobs_in_a_browser import INJECTED, worker_children
from worker.synthetic.archive import make_archive

SIZE = {"width": 1180, "height": 700}
ARCHIVES = {"clinic-north/2019": 300, "clinic-north/2020": 400, "clinic-south/letters": 200, "clinic-south/old": 60}


def main(target: Path) -> None:
    """Make all pictures."""
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        made = Path(name)
        slow = {"PYTHONPATH": str(INJECTED), "FAULT_SECONDS_PER_IMAGE": "0.08", "DERMQ_ACTOR": "night shift"}
        short = {"DERMQ_LEASE_SECONDS": "4", "DERMQ_STALL_SECONDS": "5", "DERMQ_CHUNK_SIZE": "32"}
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        with running_system(made / "home", **slow, **short) as system:
            found = re.search(r"Flower +(\S+) +user (\S+) +password (\S+)", system.greeting)
            assert found is not None
            url, user, password = found.groups()
            page = browser.new_context(
                http_credentials={"username": user, "password": password}, viewport=SIZE
            ).new_page()
            for folder, images in ARCHIVES.items():
                make_archive(made / folder, images)
            submit(system, made, "clinic-north/2019", "North, 2019")
            submit(system, made, "clinic-north/2020", "North, 2020")
            submit(system, made, "clinic-south/old", "South, at night", "--between", "03:00-03:01")
            time.sleep(6)
            submit(system, made, "clinic-south/letters", "South, this week")
            time.sleep(4)
            page.goto(f"{url}/jobs")
            shoot(page, target / "jobs.png")
            page.goto(f"{url}/job/1")
            page.set_viewport_size({**SIZE, "height": 900})
            shoot(page, target / "job.png")
            page.set_viewport_size(SIZE)
            frozen = worker_children(system)
            for child in frozen:
                os.kill(child, signal.SIGSTOP)
            page.goto(f"{url}/jobs?state=open")
            page.locator(".dermq-badge-danger").first.wait_for(timeout=60_000)
            shoot(page, target / "stall.png")
            for child in frozen:
                os.kill(child, signal.SIGCONT)
        with running_system(made / "quick") as system:
            shoot_worklist(system, made / "clinic-south" / "letters", page, target / "worklist.png")
        browser.close()


def shoot_worklist(system: RunningSystem, archive: Path, page: Page, file: Path) -> None:
    """The worklist of some lesions with one to three images each."""
    paths = sorted(path.relative_to(archive) for path in archive.rglob("*.jpg"))[:60]
    rows = [f"{path},L{number * 5 // 8}" for number, path in enumerate(paths)]
    (archive / "cases.csv").write_text("\n".join(["path,lesion_id", *rows]) + "\n")
    system.dermq("submit", archive / "cases.csv", "--name", "South, this week", "--watch")
    system.dermq("report", "1", "-o", archive / "worklist.html")
    page.set_viewport_size({**SIZE, "height": 1000})
    page.goto((archive / "worklist.html").as_uri())
    page.keyboard.press("j")
    page.keyboard.press("h")
    page.wait_for_timeout(500)
    page.screenshot(path=file)
    print(file, file.stat().st_size)


def submit(system: RunningSystem, made: Path, folder: str, name: str, *options: str) -> None:
    # Some archives share pictures, which would be reused.
    system.dermq("submit", made / folder, "--force", "--name", name, *options)


def shoot(page: Page, file: Path) -> None:
    page.locator("#dermq-live", has_text="Live").wait_for()
    page.wait_for_timeout(1_500)
    page.screenshot(path=file)
    print(file, file.stat().st_size)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
