"""What is said about skipped files: all of them counted, in bounded room, without control characters."""

from pathlib import Path

from worker.intake.scan_report import ScanReport
from worker.intake.sources.folder import walk_folder
from worker.terminal import printable


def test_the_list_has_a_total_and_every_file_is_in_it() -> None:
    report = ScanReport()
    for number in range(12):
        for _ in range(number + 1):
            report.count_other(f".k{number}")
    said = report.skipped()
    assert said.startswith("78 files (12 .k11, 11 .k10,")
    assert said.endswith(", 10 of other kinds)")
    assert f"Skipped, not images: {said}." in report.notes()


def test_one_file_is_one_file() -> None:
    report = ScanReport()
    report.count_other("")
    assert report.skipped() == "1 file (1 without suffix)"


def test_endings_without_end_take_bounded_room() -> None:
    report = ScanReport()
    for number in range(5_000):
        report.count_other(f".{number}")
    report.count_other(". Smith, a long name that only happens to have a dot in it")
    assert report.others.total() == 5_001
    assert len(report.others) < 150
    assert report.skipped().startswith("5,001 files (4,901 with other suffixes, ")


def test_nothing_passed_over_is_nothing_said() -> None:
    assert ScanReport().notes() == []


def test_names_of_an_archive_give_the_terminal_no_orders(tmp_path: Path) -> None:
    (tmp_path / "a.\x1b[2J").write_bytes(b"")
    report = ScanReport(unreadable=["b\x1b]0;title\x07", "c\u202egpj.exe"], dicom=2)
    assert list(walk_folder(tmp_path, report)) == []
    notes = report.notes()
    assert "1 .?[2j" in "".join(notes)
    assert all(note.isprintable() for note in notes), notes


def test_what_can_be_printed_stays_as_it_is() -> None:
    assert printable("Männer/皮膚 [1].jpg") == "Männer/皮膚 [1].jpg"
    assert printable("a\r\nb\x1b[31m\udce9") == "a??b?[31m?"
    assert printable("first\nsecond\x07", lines=True) == "first\nsecond?"
