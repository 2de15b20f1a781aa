"""Flower as an operator sees it, in a real browser."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, sync_playwright

from tests.acceptance.conftest import running_system
from worker.synthetic.archive import make_archive

CHROMIUM = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)

pytestmark = pytest.mark.skipif(
    CHROMIUM is None and not os.environ.get("CI"), reason="no Chromium on the PATH (Debian: apt install chromium)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's Chromium; nothing is downloaded."""
    with sync_playwright() as playwright:
        # As root, in CI, Chromium's own sandbox cannot start; it talks to nobody but this machine.
        arguments = ["--no-sandbox", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield launched
        launched.close()


def test_an_operator_sees_the_tasks_of_a_job(browser: Browser, tmp_path: Path) -> None:
    make_archive(tmp_path / "archive", 24)
    with running_system(tmp_path / "home") as system:
        system.dermq("submit", tmp_path / "archive", "--watch")
        found = re.search(r"Flower +(\S+) +user (\S+) +password (\S+)", system.greeting)
        assert found is not None
        url, user, password = found.groups()

        with pytest.raises(Error, match="ERR_INVALID_AUTH_CREDENTIALS"):
            browser.new_page().goto(f"{url}/tasks")

        page = browser.new_context(http_credentials={"username": user, "password": password}).new_page()
        page.goto(f"{url}/tasks")
        rows = page.locator("#tasks-table tbody tr")
        rows.first.wait_for()
        # 35 images in chunks of 16.
        assert rows.count() == 3
        text = rows.first.inner_text()
        assert re.search(r"chunk \d of job 1.*job 1, chunk \d: \d+ scored", rows.nth(2).inner_text(), re.DOTALL)
        assert "SUCCESS" in text.upper()
        rows.first.locator("a[href*='/task/']").first.click()
        page.locator(".detail-code").first.wait_for()
        assert "lesion-" not in page.content(), "a file name stands in Flower"
        page.goto(f"{url}/workers")
        page.get_by_text("dermq@").first.wait_for()
