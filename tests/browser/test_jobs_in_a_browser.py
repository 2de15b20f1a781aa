"""dermq's pages inside Flower, as an operator and a viewer use them in a real browser."""

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.acceptance.conftest import RunningSystem, running_system
from tests.browser.test_flower_in_a_browser import browser, pytestmark  # noqa: F401 - a fixture and a mark
from worker.synthetic.archive import make_archive

#: Slows the reading of images down.
INJECTED = Path(__file__).parents[1] / "acceptance" / "faults" / "injected"
PASSWORD = "correct horse battery"
HOSTILE = "<script>document.title='hacked'</script>"


@pytest.fixture(scope="module")
def slow_system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningSystem]:
    """A system whose stalls show after three seconds, with an operator and a viewer."""
    home = tmp_path_factory.mktemp("browser") / "home"
    # Slow images: a job lasts long enough to be seen, and a frozen process hardly ever holds the database's lock.
    slow = {"PYTHONPATH": str(INJECTED), "FAULT_SECONDS_PER_IMAGE": "0.05"}
    short = {"DERMQ_STALL_SECONDS": "3", "DERMQ_LEASE_SECONDS": "4", "DERMQ_CHUNK_SIZE": "8"}
    with running_system(home, **slow, **short) as system:
        for name, role in (("anna", "operator"), ("ben", "viewer")):
            command = [sys.executable, "-P", "-m", "worker.cli", "users", "add", name, "--role", role]
            subprocess.run(command, env=system.environment, input=f"{PASSWORD}\n", text=True, check=True, timeout=60)
        yield system


def signed_in(browser: Browser, system: RunningSystem, name: str, path: str = "/", **options: object) -> Page:  # noqa: F811
    """A page of somebody who is signed in. Anything that a page complains about fails the test."""
    found = re.search(r"Flower +(\S+) ", system.greeting)
    assert found is not None
    context = browser.new_context(http_credentials={"username": name, "password": PASSWORD}, **options)  # type: ignore[arg-type]
    page = context.new_page()
    page.complaints = []  # type: ignore[attr-defined]
    page.on("console", lambda said: page.complaints.append(said.text) if said.type in ("error", "warning") else None)  # type: ignore[attr-defined]
    page.on("pageerror", lambda error: page.complaints.append(str(error)))  # type: ignore[attr-defined]
    page.goto(f"{found[1]}{path}")
    return page


def no_complaints(page: Page) -> None:
    assert page.complaints == []  # type: ignore[attr-defined]


def row(page: Page, job: int) -> object:
    return page.locator(f'tr[data-job="{job}"]')


def worker_children(system: RunningSystem) -> list[int]:
    """The processes of the worker's pool."""
    (worker,) = [
        int(child)
        for child in Path(f"/proc/{system.process.pid}/task/{system.process.pid}/children").read_text().split()
        if b"\0worker\0" in Path(f"/proc/{child}/cmdline").read_bytes()
    ]
    return [int(child) for child in Path(f"/proc/{worker}/task/{worker}/children").read_text().split()]


def test_a_job_is_watched_to_its_end_without_reloading(
    browser: Browser,  # noqa: F811
    slow_system: RunningSystem,
    tmp_path: Path,
) -> None:
    page = signed_in(browser, slow_system, "anna")
    expect(page).to_have_title("Jobs · dermq")
    expect(page.locator("#dermq-live")).to_have_text("Live")
    make_archive(tmp_path / "archive", 24)
    job = int(slow_system.dermq("submit", tmp_path / "archive", "--name", HOSTILE).stdout)
    line = row(page, job)
    expect(line.locator(".dermq-badge")).to_have_text("finished", timeout=60_000)  # type: ignore[attr-defined]
    expect(line).to_contain_text("100% of 35")  # type: ignore[arg-type]
    expect(line).to_contain_text(HOSTILE)  # type: ignore[arg-type]
    line.locator("a").first.click()  # type: ignore[attr-defined]
    expect(page).to_have_title(f"Job {job} · dermq")
    expect(page.locator("#job-name")).to_have_text(HOSTILE)
    expect(page.locator("#job-failures")).to_contain_text("failed: truncated")
    expect(page.locator("#job-rate-plot svg")).to_be_visible()
    expect(page.locator("#job-histogram .dermq-threshold")).to_be_attached()
    with page.expect_download() as download:
        page.locator("#job-download").click()
    assert "truncated" in download.value.path().read_text()
    page.get_by_role("button", name="Retry failed").click()
    page.get_by_role("button", name="Yes, retry").click()
    expect(page.locator(".toast-body")).to_contain_text("Retrying")
    expect(page.locator("#job-audit")).to_contain_text("anna (Flower)", timeout=20_000)
    no_complaints(page)


def test_a_job_is_paused_resumed_and_cancelled(browser: Browser, slow_system: RunningSystem, tmp_path: Path) -> None:  # noqa: F811
    make_archive(tmp_path / "archive", 400)
    job = int(slow_system.dermq("submit", tmp_path / "archive", "--force").stdout)
    page = signed_in(browser, slow_system, "anna", f"/job/{job}")
    state = page.locator("#job-state")
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="No", exact=True).click()
    expect(state).to_have_text("running", timeout=10_000)
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Yes, pause").click()
    expect(state).to_have_text("paused")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Yes, resume").click()
    expect(state).to_have_text("running", timeout=20_000)
    # By keyboard, in the list, as one of a selection.
    page.goto(page.url.replace(f"/job/{job}", "/jobs"))
    page.get_by_label(f"Choose job {job}").press("Space")
    expect(page.locator("#dermq-chosen")).to_have_text("1 job chosen")
    page.locator("#dermq-bulk").get_by_role("button", name="Cancel").press("Enter")
    page.get_by_role("button", name="Yes, cancel").press("Enter")
    expect(row(page, job).locator(".dermq-badge")).to_have_text("cancelled", timeout=10_000)  # type: ignore[attr-defined]
    no_complaints(page)


def test_a_frozen_worker_turns_a_job_red_and_green_again(
    browser: Browser,  # noqa: F811
    slow_system: RunningSystem,
    tmp_path: Path,
) -> None:
    make_archive(tmp_path / "archive", 300)
    job = int(slow_system.dermq("submit", tmp_path / "archive", "--force", "--urgent").stdout)
    page = signed_in(browser, slow_system, "ben", "/jobs?state=open")
    badge = row(page, job).locator(".dermq-badge")  # type: ignore[attr-defined]
    expect(badge).to_have_text("running", timeout=20_000)
    frozen = worker_children(slow_system)
    for child in frozen:
        subprocess.run(["kill", f"-{int(signal.SIGSTOP)}", str(child)], check=True)
    try:
        expect(badge).to_have_text("stalled", timeout=30_000)
        expect(row(page, job).locator(".dermq-stall")).to_contain_text("The worker on")  # type: ignore[attr-defined]
        expect(page.locator("#sum-attention")).not_to_have_text("0")
        said = slow_system.dermq("check", check=False)
        assert said.returncode == 1
        # Now and then a process is stopped while it writes. Then it holds the lock of the database, named first.
        assert re.search("process is frozen or dead|FAIL  database", said.stdout)
    finally:
        for child in frozen:
            subprocess.run(["kill", f"-{int(signal.SIGCONT)}", str(child)], check=True)
    page.goto(page.url.replace("?state=open", ""))
    expect(badge).to_have_text("finished", timeout=90_000)
    no_complaints(page)


def test_a_viewer_sees_no_button_and_every_link_leads_somewhere(
    browser: Browser,  # noqa: F811
    slow_system: RunningSystem,
) -> None:
    page = signed_in(browser, slow_system, "ben")
    expect(page.locator("#dermq-rows tr").first).to_be_visible()
    expect(page.locator(".dermq-account")).to_have_text("ben, viewer")
    assert page.get_by_role("checkbox").count() == 0
    seen = set()
    for start in ("/jobs", "/job/1", "/workers"):
        page.goto(re.sub(r"(https?://[^/]+).*", rf"\1{start}", page.url))
        page.wait_for_timeout(1_000)
        assert page.locator("[data-action]").count() == 0
        for link in page.locator("a[href^='/']").all():
            seen.add(link.get_attribute("href"))
    for address in seen:
        answer = page.request.get(re.sub(r"(https?://[^/]+).*", rf"\1{address}", page.url))
        assert answer.ok, address
    no_complaints(page)


def test_flower_restarted_in_mid_job_shows_the_same(
    browser: Browser,  # noqa: F811
    slow_system: RunningSystem,
) -> None:
    page = signed_in(browser, slow_system, "ben", "/jobs?order=oldest")
    text = page.locator("#dermq-rows tr").first
    expect(text).to_contain_text("35")
    before = text.locator(".dermq-bar").get_attribute("aria-label")
    subprocess.run(["pkill", "-KILL", "-f", "worker.cli flower"], check=True)
    expect(page.locator("#dermq-live")).to_have_text("Not up to date", timeout=20_000)
    expect(page.locator("#dermq-live")).to_have_text("Live", timeout=60_000)
    assert page.locator("#dermq-rows tr").first.locator(".dermq-bar").get_attribute("aria-label") == before


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_pages_are_accessible(browser: Browser, slow_system: RunningSystem, scheme: str) -> None:  # noqa: F811
    for path, width in (("/jobs", 1280), ("/job/1", 1280), ("/jobs", 390), ("/job/1", 390)):
        page = signed_in(
            browser,
            slow_system,
            "anna",
            path,
            color_scheme=scheme,
            viewport={"width": width, "height": 900},
            bypass_csp=True,
        )
        expect(page.locator("#dermq-live")).to_have_text("Live")
        time.sleep(0.5)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, f"{path} is wider than {width} pixels"
        found = Axe().run(page, context="main").response
        serious = [
            (fault["id"], [node["html"] for node in fault["nodes"]])
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        assert serious == [], (path, width)
        page.close()
