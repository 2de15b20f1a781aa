"""Intake: all that was found is recorded or nothing is, a broker that is away costs no image, and archives stream."""

import os
import time
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from click.testing import CliRunner
from kombu.exceptions import KombuError
from sqlalchemy import Engine, event, select

from db.claims import claim_chunk
from db.jobs import view_jobs
from db.models import Chunk, Image, Job
from db.session import read, transact
from db.status import ChunkStatus, JobStatus
from tests.integration.submissions import chunks, messages_of, paths, put, rows_in, submission
from worker.cli import main
from worker.errors import BundleError, ManifestError
from worker.inference.bundle import Bundle
from worker.intake.submission import submit
from worker.local.broker import free_port
from worker.queue.app import make_app
from worker.settings import Settings


def test_a_folder_becomes_a_job_with_its_chunks(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", "a.jpg", "b/c.png", "b/d.tif", "b/e.jpg", "f.jpg", "README.txt", ".hidden.jpg")
    intake = submit(submission(source), database=sqlite_database, app=app, bundle=bundle)
    assert (intake.images, intake.repeated, intake.hinted) == (5, 0, True)
    assert paths(sqlite_database, intake) == ["a.jpg", "f.jpg", "b/c.png", "b/d.tif", "b/e.jpg"]
    assert [chunk.size for chunk in chunks(sqlite_database)] == [2, 2, 1]
    assert all(chunk.hinted_at for chunk in chunks(sqlite_database))
    (job,) = read(sqlite_database, lambda c: view_jobs(c))
    assert (job.status, job.root, job.manifest, job.urgent) == (JobStatus.QUEUED, str(source), None, False)
    assert (job.policy, job.threshold, job.borderline_threshold) == ("youden", 0.5, 0.4)
    assert (job.bundle_name, job.bundle_sha256) == ("synthetic", bundle.sha256)
    notes = "\n".join(intake.notes())
    assert "5 images submitted" in notes
    assert "1 .txt" in notes
    assert "Skipped, hidden files and folders: 1." in notes


def test_a_manifest_becomes_a_job_with_what_it_says(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    root = put(tmp_path / "root", "a.jpg")
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,lesion_id,patient_ref,age,sex,site\na.jpg,L1,P1,70,male,back\ngone.jpg,,,,,\n")
    intake = submit(submission(manifest, root=root), database=sqlite_database, app=app, bundle=bundle)
    (job,) = read(sqlite_database, lambda c: view_jobs(c))
    assert (job.root, job.manifest) == (str(root), str(manifest))
    first, second = read(sqlite_database, lambda c: list(c.execute(select(Image).order_by(Image.id))))
    assert (first.lesion_id, first.patient_ref, first.age, first.sex, first.site) == ("L1", "P1", 70, "male", "back")
    assert first.size_bytes == (root / "a.jpg").stat().st_size
    # A file that is not there is an image all the same: a worker says so, intake does not drop it.
    assert (second.path, second.size_bytes) == ("gone.jpg", None)
    assert intake.images == 2


def test_paths_of_a_manifest_are_relative_to_its_own_folder(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "in", "a.jpg")
    (tmp_path / "in" / "list.csv").write_text("path\na.jpg\n")
    monkeypatch.chdir(tmp_path)
    submit(submission(Path("in/list.csv")), database=sqlite_database, app=app, bundle=bundle)
    (job,) = read(sqlite_database, lambda c: view_jobs(c))
    assert job.root == str(tmp_path / "in")


@pytest.mark.parametrize(("urgent", "queue", "other"), [(True, "urgent", "bulk"), (False, "bulk", "urgent")])
def test_a_message_holds_the_numbers_of_chunk_and_job_and_nothing_of_a_patient(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path, urgent: bool, queue: str, other: str
) -> None:
    source = put(tmp_path / "in", "Miller/a.jpg", "Miller/b.jpg", "Miller/c.jpg")
    job_id = submit(submission(source, urgent=urgent), database=sqlite_database, app=app, bundle=bundle).job_id
    messages = messages_of(app, queue)
    assert [message.payload[0] for message in messages] == [[chunk.id, job_id] for chunk in chunks(sqlite_database)]
    assert [message.headers["argsrepr"] for message in messages] == [
        f"chunk {chunk.id} of job {job_id}" for chunk in chunks(sqlite_database)
    ]
    assert messages_of(app, other) == []
    for message in messages:
        assert "Miller" not in f"{message.body!r} {message.headers!r} {message.properties!r}"
        assert str(tmp_path) not in f"{message.body!r} {message.headers!r} {message.properties!r}"


def test_without_a_broker_the_job_is_recorded_for_the_sweeper(
    sqlite_database: Engine, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(20)))
    settings = Settings(broker_url=f"redis://127.0.0.1:{free_port()}/0", home=tmp_path)  # type: ignore[arg-type]
    intake = submit(submission(source), database=sqlite_database, app=make_app(settings), bundle=bundle)
    assert (intake.images, intake.hinted) == (20, False)
    found = chunks(sqlite_database)
    # Ten chunks, two batches: what was marked before the first failure is unmarked too.
    assert [(chunk.status, chunk.hinted_at) for chunk in found] == [(ChunkStatus.WAITING, None)] * 10
    (job,) = read(sqlite_database, lambda c: view_jobs(c))
    assert job.status == JobStatus.QUEUED
    assert "starts by itself when the broker is back" in intake.notes()[-1]


def test_a_broker_that_fails_in_the_middle_is_asked_no_more(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(24)))
    send, asked = app.send_task, []

    def send_some(*arguments: Any, **options: Any) -> Any:
        asked.append(options["args"])
        if len(asked) == 4:
            raise KombuError("went away")
        return send(*arguments, **options)

    monkeypatch.setattr(app, "send_task", send_some)
    intake = submit(submission(source, chunk_size=1), database=sqlite_database, app=app, bundle=bundle)
    assert (intake.images, intake.hinted, len(asked)) == (24, False, 4)
    assert [chunk.hinted_at for chunk in chunks(sqlite_database)] == [None] * 24


def test_repeated_paths_count_once_the_first(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    # Sixteen rows are one batch: the repetitions stand in the same one and in the next.
    rows = ["a.jpg,first", "b.jpg,", "a.jpg,second", "./b.jpg,", *(f"{number}.jpg," for number in range(12))]
    rows += ["a.jpg,third", "new.jpg,", "0.jpg,", "new.jpg,"]
    manifest = tmp_path / "list.csv"
    manifest.write_text("\n".join(["path,lesion_id", *rows]) + "\n")
    intake = submit(submission(manifest), database=sqlite_database, app=app, bundle=bundle)
    expected = ["a.jpg", "b.jpg", *(f"{number}.jpg" for number in range(12)), "new.jpg"]
    assert paths(sqlite_database, intake) == expected
    assert (intake.images, intake.repeated) == (15, 5)
    assert sum(chunk.size for chunk in chunks(sqlite_database)) == 15
    assert any("rows that repeat a path: 5" in note for note in intake.notes())
    assert any("of 15 files were not found" in note for note in intake.notes())
    query = select(Image.lesion_id).where(Image.path == "a.jpg")
    assert read(sqlite_database, lambda c: c.scalar(query)) == "first"


def test_paths_that_lead_out_are_distinguished_from_missing_files(
    database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    root = put(tmp_path / "in", "a.jpg")
    outside = put(tmp_path, "outside.jpg") / "outside.jpg"
    manifest = tmp_path / "list.csv"
    rows = ("a.jpg", "missing.jpg", str(outside), "../outside.jpg", "../nowhere.jpg", "..a.jpg")
    manifest.write_text("\n".join(("path", *rows)) + "\n")
    intake = submit(submission(manifest, root=root), database=database, app=app, bundle=bundle)
    assert (intake.images, intake.outside_root, intake.not_found) == (6, 3, 2)
    said = "\n".join(intake.notes())
    assert f"3 of 6 paths lead out of {root}. Workers read nothing outside" in said
    assert f"2 of 6 files were not found under {root}" in said


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("missing.jpg", "Name the right folder with --root"),
        ("ISIC_0000001", "Write file names with their suffix, such as .jpg, and name the right folder"),
        ("part_1\\a.jpg", "Write / instead of \\ between folders"),
        ("C:\\part_1\\a.jpg", "Windows"),
        ("C:/part_1/a.jpg", "Windows"),
    ],
)
def test_paths_without_a_file_are_answered_with_what_is_wrong_with_them(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path, path: str, advice: str
) -> None:
    root = put(tmp_path / "in", "a.jpg")
    manifest = tmp_path / "list.csv"
    # One that leads out comes first: no file was looked for, and its ending says nothing of the others.
    manifest.write_text(f"path\n/elsewhere/z\na.jpg\n{path}\n")
    intake = submit(submission(manifest, root=root), database=sqlite_database, app=app, bundle=bundle)
    (said,) = [note for note in intake.notes() if "not found" in note]
    assert f"1 of 3 files was not found under {root}. {advice}" in said
    assert path not in said.replace(str(root), "")


def test_a_root_beside_a_folder_is_refused(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path, "a.jpg")
    with pytest.raises(ManifestError, match="--root belongs to a manifest"):
        submit(submission(source, root=tmp_path), database=sqlite_database, app=app, bundle=bundle)
    assert rows_in(sqlite_database, Job, Chunk, Image) == [0, 0, 0]


@pytest.mark.parametrize("names", [(), ("README.txt", "b/letter.docx")])
def test_a_folder_without_images_leaves_no_job(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path, names: tuple[str, ...]
) -> None:
    (tmp_path / "in").mkdir()
    source = put(tmp_path / "in", *names)
    with pytest.raises(ManifestError, match="No image found") as caught:
        submit(submission(source), database=sqlite_database, app=app, bundle=bundle)
    assert ("1 .docx" in str(caught.value)) == bool(names)
    assert rows_in(sqlite_database, Job, Chunk, Image) == [0, 0, 0]


@pytest.mark.parametrize(
    "content", ["path,age\na.jpg,4\n" + "b.jpg,4\n" * 100 + '"c.jpg\n', "picture\na.jpg\n", "path\n", "path\n \n", ""]
)
def test_a_wrong_manifest_leaves_no_job(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path, content: str
) -> None:
    manifest = tmp_path / "list.csv"
    manifest.write_text(content)
    with pytest.raises(ManifestError):
        submit(submission(manifest), database=sqlite_database, app=app, bundle=bundle)
    assert rows_in(sqlite_database, Job, Chunk, Image) == [0, 0, 0]
    assert messages_of(app, "bulk") == []


def test_a_source_that_is_not_there_leaves_no_job(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match="Submit a folder of images or a manifest"):
        submit(submission(tmp_path / "nowhere"), database=sqlite_database, app=app, bundle=bundle)
    assert rows_in(sqlite_database, Job) == [0]


def test_a_policy_that_the_bundle_does_not_support_leaves_no_job(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / "in", "a.jpg")
    with pytest.raises(BundleError, match=r"sensitivity:0\.95, youden"):
        submit(submission(source, policy="accuracy"), database=sqlite_database, app=app, bundle=bundle)
    assert rows_in(sqlite_database, Job) == [0]


def test_workers_start_during_intake(sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path) -> None:
    """What is committed first can be scored before the last folder has even been looked into."""
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)), "z/last.jpg")
    seen: list[int] = []

    def watch(images: int) -> None:
        if not seen:
            assert rows_in(sqlite_database, Chunk, Image) == [8, 16]
            assert rows_in(sqlite_database, Job) == [1]
            assert len(messages_of(app, "bulk")) == 8
            first = chunks(sqlite_database)[0]
            assert transact(sqlite_database, lambda c: claim_chunk(c, first.id, "early", 60)) is not None
            # Seen only by an intake that has not listed this folder yet.
            put(source, "z/new.jpg")
        seen.append(images)

    intake = submit(submission(source), database=sqlite_database, app=app, bundle=bundle, on_progress=watch)
    assert seen == [16, 32, 42]
    assert paths(sqlite_database, intake)[-2:] == ["z/last.jpg", "z/new.jpg"]
    (job,) = read(sqlite_database, lambda c: view_jobs(c))
    assert job.status == JobStatus.RUNNING


@pytest.mark.parametrize("error", [KeyboardInterrupt, ManifestError])
def test_a_submission_broken_off_is_withdrawn(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path, error: type[BaseException]
) -> None:
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)))

    def break_off(images: int) -> None:
        if images > 16:
            raise error("broken off")

    with pytest.raises(error):
        submit(submission(source), database=sqlite_database, app=app, bundle=bundle, on_progress=break_off)
    assert rows_in(sqlite_database, Job, Chunk, Image) == [0, 0, 0]


def test_ctrl_c_in_the_middle_of_a_statement_does_not_lock_the_database_against_the_withdrawal(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    """The exception's frames held the cursor, and that SQLite's write lock: everybody waited for a minute, in vain."""
    source = put(tmp_path / "in", *(f"{number:02}.jpg" for number in range(40)))

    @event.listens_for(sqlite_database, "after_cursor_execute")
    def break_off(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO image"):
            event.remove(sqlite_database, "after_cursor_execute", break_off)
            raise KeyboardInterrupt

    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        submit(submission(source), database=sqlite_database, app=app, bundle=bundle)
    assert rows_in(sqlite_database, Job, Chunk, Image) == [0, 0, 0]
    # SQLite waits ten seconds for a lock, five times over.
    assert time.monotonic() - begun < 9


def test_file_names_that_are_not_utf_8(database: Engine, app: Celery, bundle: Bundle, tmp_path: Path) -> None:
    source = put(tmp_path / "in", os.fsdecode(b"caf\xe9.jpg"))
    intake = submit(submission(source), database=database, app=app, bundle=bundle)
    assert paths(database, intake) == [r"caf\xe9.jpg"]


def test_a_folder_whose_own_name_is_not_utf_8(
    sqlite_database: Engine, app: Celery, bundle: Bundle, tmp_path: Path
) -> None:
    source = put(tmp_path / os.fsdecode(b"clinic-\xe9"), "a.jpg")
    assert submit(submission(source), database=sqlite_database, app=app, bundle=bundle).images == 1


def test_a_folder_that_cannot_be_read_is_reported_and_no_success(
    sqlite_database: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = put(tmp_path / "in", "a.jpg", "locked\x1b[2J/b.jpg", "IM0001")
    (source / "IM0001").write_bytes(bytes(128) + b"DICM")
    scandir = os.scandir

    def refuse(path: str) -> Any:
        # Root may read every folder.
        if "locked" in str(path):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    monkeypatch.setattr("worker.intake.sources.passed_over.dicom_is_installed", lambda: False)
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    monkeypatch.setenv("DERMQ_BROKER_URL", "redis://127.0.0.1:1/0")
    result = CliRunner().invoke(main, ["submit", str(source)])
    assert result.exit_code == 1
    # The job is recorded all the same, and its number told.
    assert result.stdout == "1\n"
    assert "1 folder could not be read and NOT submitted: locked?[2J" in result.stderr
    assert "1 DICOM file NOT submitted" in result.stderr


@pytest.mark.parametrize(
    ("there", "second", "status"),
    [((), "b.jpg", 1), (("a.jpg",), "b.jpg", 0), ((), "/elsewhere/b.jpg", 1), (("a.jpg",), "/elsewhere/b.jpg", 0)],
)
def test_a_manifest_of_which_no_path_leads_to_a_file_is_no_success(
    sqlite_database: Engine,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: tuple[str, ...],
    second: str,
    status: int,
) -> None:
    """It names the wrong folder, or the share is not mounted; a script must not go on."""
    put(tmp_path / "in", "z.txt", *there)
    manifest = tmp_path / "cases.csv"
    manifest.write_text(f"path\na.jpg\n{second}\n")
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))
    monkeypatch.setenv("DERMQ_BROKER_URL", "redis://127.0.0.1:1/0")
    result = CliRunner().invoke(main, ["submit", str(manifest), "--root", str(tmp_path / "in")])
    assert (result.exit_code, result.stdout) == (status, "1\n"), result.stderr
    outside = second.startswith("/")
    assert ("1 of 2 paths leads out" in result.stderr) == outside
    missing = 2 - len(there) - outside
    assert (f"WARNING: {missing} of 2 files" in result.stderr) == (missing > 0)


def test_an_empty_source_is_not_the_current_folder() -> None:
    """As `dermq submit "$ARCHIVE"` gives it where the variable is not set."""
    result = CliRunner().invoke(main, ["submit", ""])
    assert result.exit_code == 2
    assert "a dot is the current folder" in result.stderr
