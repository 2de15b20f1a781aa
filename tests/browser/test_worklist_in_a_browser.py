"""The worklist page as a dermatologist uses it: offline, by keyboard, on a phone; and what it must never do."""

import csv
import time
from dataclasses import replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from db.status import ImageStatus, TriageFlag
from tests.acceptance.conftest import running_system
from tests.browser.test_flower_in_a_browser import browser, pytestmark  # noqa: F401 - a fixture and a mark
from tests.job_view import JOB as STORED_JOB
from tests.picture_files import PICTURE
from tests.unit.worker.output.test_csv import NOT_SCORED, ROW
from worker.images.opencv import cv2
from worker.output.thumbnails import embedded
from worker.output.worklist_cases import make_worklist
from worker.output.worklist_html import PageOptions, PolicyFigures, write_worklist_page
from worker.synthetic.archive import make_archive

HOSTILE = "\"><script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\">.jpg"
THUMBNAIL = cv2.imencode(".jpg", PICTURE)[1].tobytes()
FIGURES = PolicyFigures(sensitivity=(0.77, 0.69, 0.85), specificity=(0.86, 0.83, 0.89))
JOB = replace(STORED_JOB, name=HOSTILE)


def write(path: Path, cases: int) -> None:
    rows = [replace(NOT_SCORED, image_id=10**6, path=HOSTILE, status=ImageStatus.FAILED, reason=HOSTILE)]
    for number in range(cases):
        flag = TriageFlag.HIGH_RISK if number < cases / 2 else TriageFlag.LOWER_PRIORITY
        lesion = HOSTILE if number == 0 else f"L{number // 2}"
        rows.append(
            replace(
                ROW,
                image_id=number,
                quality_notes="hair unusual" if number == 0 else None,
                path=HOSTILE if number == 1 else f"{cases - number:05}.jpg", flag=flag,
                lesion_id=lesion, probability=0.99 - 0.9 * number / cases,
                malignant_probability=0.9 if number == cases - 1 else 0.62,
            )
        )  # fmt: skip
    options = PageOptions(
        thumbnail=embedded(dict.fromkeys(range(50), THUMBNAIL)),
        references={0: HOSTILE},
        evidence={0: bytes(range(0, 49 * 5, 5)), 1: b""},
        fit="contain",
        made_at=datetime(2026, 1, 2, tzinfo=UTC),
        state="finished",
    )
    with path.open("w", encoding="utf-8") as file:
        write_worklist_page(make_worklist(rows, most=10_000, cancelled=False), JOB, FIGURES, options, file)


def opened(browser: Browser, path: Path, **options: object) -> tuple[Page, list[str]]:  # noqa: F811
    page = browser.new_context(**options).new_page()  # type: ignore[arg-type]
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith(("file:", "data:")) else said.append(request.url))
    page.goto(path.as_uri())
    return page, said


def test_a_reader_steps_through_the_cases_and_keeps_findings(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    write(tmp_path / "page.html", 40)
    page, said = opened(browser, tmp_path / "page.html")
    cases = page.locator(".case")
    expect(page.locator("#count")).to_have_text("21 of 21 cases shown, 0 reviewed; 1 without a score not reviewed")
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(cases.nth(1)).to_be_focused()
    page.keyboard.press("r")
    expect(cases.nth(1).locator(".reviewed")).to_be_checked()
    page.keyboard.press("f")
    expect(cases.nth(1).locator(".finding")).to_be_focused()
    cases.nth(1).locator(".finding").select_option("excise")
    cases.nth(1).locator(".comment").fill('=1+1, "urgent"')
    page.get_by_label("Reviewer").fill("Dr. Å. Ek")
    cases.nth(1).locator(".diagnosis").select_option("melanoma")
    page.get_by_label("not reviewed yet").check()
    expect(page.locator("#count")).to_have_text(
        "20 of 21 cases shown, 1 reviewed; 1 without a score not reviewed. Filter: not reviewed yet"
    )
    page.get_by_label("not reviewed yet").uncheck()
    page.locator("#by-flag").select_option("lower_priority")
    expect(page.locator(".case:visible")).to_have_count(10)
    page.emulate_media(media="print")
    expect(page.locator("#count")).to_be_visible()
    expect(page.locator("#count")).to_contain_text("Filter: flag lower_priority")
    expect(page.locator("#save")).to_be_hidden()
    page.emulate_media(media="screen")
    page.locator("#by-flag").select_option("")
    page.locator("#order").select_option("path")
    assert cases.first.get_attribute("data-rank") != "1"
    # The ranks compare melanoma with nevus; another cancer may lie far below.
    page.locator("#order").select_option("malignant")
    assert [cases.nth(place).get_attribute("data-rank") for place in range(3)] == ["21", "1", "2"]
    page.locator("#order").select_option("path")
    # 0.99 where 14 of 100 are melanomas; odds 99 : 1, and a seventh or so of them where 2 of 100 are.
    first = page.locator('.case[data-rank="1"] .adjusted')
    expect(first).to_have_text("about 93 in 100")
    before = page.locator("#predictive").inner_text()
    page.get_by_label("Of 100 lesions here, melanomas:").select_option("0.14")
    assert page.locator("#predictive").inner_text() != before
    expect(first).to_have_text("about 99 in 100")
    # Closed and opened again: what was found is still there.
    page.reload()
    expect(cases.nth(1).locator(".comment")).to_have_value('=1+1, "urgent"')
    with page.expect_download() as download:
        page.get_by_role("button", name="Save findings as CSV").click()
    text = Path(download.value.path()).read_text(encoding="utf-8-sig")
    saved = list(csv.DictReader(StringIO(text, newline="")))
    # The image without a score first, which has a finding of its own.
    assert len(saved) == 22
    assert (saved[0]["rank"], saved[0]["flag"], saved[0]["reviewed"]) == ("", "ungradable", "no")
    assert (saved[2]["rank"], saved[2]["reviewed"], saved[2]["finding"]) == ("2", "yes", "excise")
    assert saved[2]["comment"] == '\'=1+1, "urgent"'
    today = page.evaluate("new Date().toLocaleDateString('sv')")
    assert (saved[2]["diagnosis"], saved[2]["reviewer"], saved[2]["date"]) == ("melanoma", "Dr. Å. Ek", today)
    assert (saved[1]["diagnosis"], saved[1]["reviewer"], saved[1]["date"]) == ("", "", "")
    expect(page.get_by_label("Reviewer")).to_have_value("Dr. Å. Ek")
    assert page.title() != "hacked"
    assert said == []


def test_heat_maps_are_drawn_on_demand_and_where_they_belong(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    write(tmp_path / "page.html", 10)
    page, said = opened(browser, tmp_path / "page.html")
    first = page.locator(".case").first
    expect(first.locator(".borderline-quality")).to_have_text(
        "Borderline quality: much hair, or other dark lines, unlike most images that the model was trained on"
    )
    maps = page.locator("canvas")
    expect(maps).to_have_count(0)
    page.keyboard.press("j")
    page.keyboard.press("h")
    expect(maps).to_have_count(1)
    # The model has seen mirrored borders above and below the wide picture, which are not on the page.
    image, drawn = first.locator("img").first, maps.first
    assert drawn.bounding_box() == image.bounding_box()
    width, height = drawn.evaluate("canvas => [canvas.width, canvas.height]")
    assert width > height
    for y in (height // 5, height // 2, height - height // 5):
        row = ((width - height) / 2 + y) / width * 7 - 0.5
        alpha = drawn.evaluate(
            "(c, [x, y]) => c.getContext('2d', { willReadFrequently: true }).getImageData(x, y, 1, 1).data[3]",
            [width // 2, y],
        )
        assert alpha == pytest.approx(0.8 * max(0, 5 * (7 * row + 3) - 85), abs=16)
    page.get_by_label("larger pictures").check()
    expect(image).to_have_css("width", "320px")
    assert drawn.bounding_box() == image.bounding_box()
    page.keyboard.press("h")
    expect(maps).to_have_count(0)
    page.get_by_label("heat maps").check()
    expect(maps).to_have_count(1)
    expect(page.locator(".empty-map:visible")).to_have_count(1)
    expect(page.locator("#about-maps")).to_be_visible()
    page.get_by_label("heat maps").uncheck()
    expect(maps).to_have_count(0)
    assert [line for line in said if not line.startswith("Canvas2D")] == []


def test_a_picture_opens_as_large_as_the_window(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    write(tmp_path / "page.html", 10)
    page, said = opened(browser, tmp_path / "page.html", viewport={"width": 1000, "height": 800})
    cases, enlarged = page.locator(".case"), page.locator("#enlarged")
    expect(enlarged).to_be_hidden()
    cases.nth(1).locator("img").first.click()
    expect(enlarged).to_be_visible()
    box = enlarged.locator("img").bounding_box()
    assert box is not None
    assert box["width"] > 900
    assert box["height"] > 500
    expect(enlarged.locator(".place")).to_contain_text("Rank 2, high_risk: ")
    # Its case is the current one, and the keys go on from there, with the picture open.
    page.keyboard.press("r")
    expect(cases.nth(1).locator(".reviewed")).to_be_checked()
    expect(enlarged.locator(".place")).to_contain_text("reviewed")
    page.keyboard.press("k")
    expect(enlarged.locator(".place")).to_contain_text("Rank 1")
    expect(enlarged.locator("canvas")).to_have_count(0)
    page.keyboard.press("h")
    expect(enlarged.locator("canvas")).to_have_count(1)
    assert enlarged.locator("canvas").bounding_box() == enlarged.locator("img").bounding_box()
    page.keyboard.press("z")
    expect(enlarged).to_be_hidden()
    expect(cases.first).to_be_focused()
    page.keyboard.press("z")
    page.keyboard.press("f")
    expect(enlarged).to_be_hidden()
    expect(cases.first.locator(".finding")).to_be_focused()
    # A case of two pictures.
    page.keyboard.press("Escape")
    cases.nth(2).locator("img").first.click()
    words = enlarged.locator(".place").inner_text()
    page.keyboard.press("ArrowRight")
    assert enlarged.locator(".place").inner_text() != words
    page.keyboard.press("ArrowLeft")
    expect(enlarged.locator(".place")).to_have_text(words)
    page.keyboard.press("Escape")
    expect(enlarged).to_be_hidden()
    assert [line for line in said if not line.startswith("Canvas2D")] == []


def test_nothing_hostile_runs_nothing_leaves_and_nothing_is_hard_to_read(
    browser: Browser,  # noqa: F811
    tmp_path: Path,
) -> None:
    write(tmp_path / "page.html", 30)
    for width, scheme in ((1280, "light"), (390, "light"), (1280, "dark")):
        page, said = opened(
            browser,
            tmp_path / "page.html",
            viewport={"width": width, "height": 900},
            color_scheme=scheme,
            bypass_csp=True,
        )
        page.keyboard.press("j")
        page.keyboard.press("r")
        page.locator(".case img").first.click()
        expect(page.locator("#enlarged")).to_be_visible()
        assert page.title() != "hacked"
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = Axe().run(page).response
        serious = [
            (fault["id"], [node["html"][:200] for node in fault["nodes"]])
            for fault in found["violations"]
            if fault["impact"] in ("serious", "critical")
        ]
        assert serious == [], (width, scheme)
        assert said == []
        page.context.close()


def test_ten_thousand_cases_open_and_filter_fast(browser: Browser, tmp_path: Path) -> None:  # noqa: F811
    write(tmp_path / "page.html", 20_000)
    page, _ = opened(browser, tmp_path / "page.html")
    expect(page.locator("#count")).to_contain_text("10000 of 10000 cases shown, 0 reviewed")
    started = time.monotonic()
    page.locator("#by-text").fill("L77")
    expect(page.locator("#count")).to_contain_text("111 of 10000")
    # A hang, and no measurement: some tenths of a second are usual.
    assert time.monotonic() - started < 20


def test_the_command_writes_a_page_with_pictures_and_says_so_in_the_audit_log(
    browser: Browser,  # noqa: F811
    tmp_path: Path,
) -> None:
    make_archive(tmp_path / "archive", 24)
    target = tmp_path / "worklist.html"
    with running_system(tmp_path / "home") as system:
        job = system.dermq("submit", tmp_path / "archive", "--watch").stdout.strip()
        system.dermq("report", job, "-o", target, "--with-references")
        assert "references" in system.dermq("audit", "list").stdout
        refused = system.dermq("report", job, "-o", tmp_path / "nowhere" / "x.html", check=False)
        assert (refused.returncode, "There is no folder" in refused.stderr) == (2, True)
    assert target.stat().st_mode & 0o777 == 0o600
    page, said = opened(browser, target)
    pictures = page.locator(".case img")
    assert pictures.count() > 3
    pictures.first.scroll_into_view_if_needed()
    assert pictures.first.evaluate("image => image.decode().then(() => image.naturalWidth)") > 100
    expect(page.locator("#unscored .lost").first).to_be_visible()
    headings = page.locator("#unscored h3").all_inner_texts()
    assert [heading.rpartition(" (")[0] for heading in headings] == [
        "The picture is not fit to be scored",
        "The file could not be processed",
    ]
    assert sum(int(heading[:-1].rpartition("(")[2]) for heading in headings) == page.locator(".lost").count()
    assert said == []
