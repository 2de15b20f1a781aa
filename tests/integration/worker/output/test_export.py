"""`dermq export` as its user meets it: what is written, what is said about what is not in it, what the log keeps."""

import csv
import errno
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet
from sqlalchemy import Engine, update

from db.audit import entries_of
from db.claims import claim_chunk
from db.job_control import cancel_job, pause_job
from db.models import Image
from db.outcomes import Failed, Outcome, Scored, Ungradable, write_outcomes
from db.session import read, transact
from db.status import AuditAction, FailureCode, TriageFlag, UngradableReason
from db.worklist import outcomes_ranked
from tests.integration.databases import MadeJob, add_job
from worker.cli import main

Export = Callable[..., Result]


@pytest.fixture
def export(sqlite_database: Engine, monkeypatch: pytest.MonkeyPatch) -> Export:
    """The command, on the test's database."""
    monkeypatch.setenv("DERMQ_DATABASE_URL", str(sqlite_database.url))

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["export", *map(str, arguments)])

    return run


def scored(image_id: int, probability: float) -> Scored:
    flag = TriageFlag.HIGH_RISK if probability >= 0.5 else TriageFlag.LOWER_PRIORITY
    return Scored(
        image_id=image_id, image_sha256="a" * 64, raw_probability=probability, probability=probability, flag=flag
    )


def failed(image_id: int) -> Failed:
    return Failed(image_id=image_id, code=FailureCode.MISSING, sentence="it is not there")


def ungradable(image_id: int) -> Ungradable:
    return Ungradable(image_id=image_id, reason=UngradableReason.BLURRED, sentence="blurred")


def write(database: Engine, made: MadeJob, *outcomes: Outcome) -> None:
    """As a worker does that has not closed its chunk yet."""

    def work(connection) -> None:
        claim_chunk(connection, made.chunk_ids[0], "owner", 60)
        write_outcomes(connection, outcomes, job_id=made.job_id, bundle_id=made.bundle_id, engine="fake 1")

    transact(database, work)


def lines(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        (pause_job, "is paused: 3 of these 5 images are waiting and have no outcome. `dermq resume"),
        (cancel_job, "is cancelled: 3 of these 5 images were not scored before the job was cancelled"),
        (None, "is running: 3 of these 5 images are waiting and have no outcome yet"),
    ],
)
def test_images_without_an_outcome_are_counted_on_standard_error(
    sqlite_database: Engine, export: Export, stop: Callable[..., bool] | None, words: str
) -> None:
    made = add_job(sqlite_database, 5)
    write(sqlite_database, made, scored(made.image_ids[0], 0.9), failed(made.image_ids[1]))
    if stop is not None:
        assert transact(sqlite_database, lambda c: stop(c, made.job_id, actor="test", request=uuid4().hex))
    result = export(made.job_id)
    assert result.exit_code == 0
    assert f"WARNING: job {made.job_id} {words}" in result.stderr
    assert [line["status"] for line in lines(result.stdout)] == ["scored", "failed", "waiting", "waiting", "waiting"]
    assert "WARNING" not in result.stdout
    # Only images that will never be scored go to a human.
    flags = [line["flag"] for line in lines(result.stdout)]
    assert flags == ["high_risk", "ungradable", *(["ungradable"] * 3 if stop is cancel_job else [""] * 3)]


def test_a_job_that_is_just_taken_in_says_what_is_missing(sqlite_database: Engine, export: Export) -> None:
    made = add_job(sqlite_database, 2, submitted=False)
    result = export(made.job_id)
    assert "is still being submitted, so images are missing" in result.stderr
    assert "2 of these 2 images are waiting" in result.stderr


def test_nothing_is_warned_of_when_nothing_waits(sqlite_database: Engine, export: Export) -> None:
    made = add_job(sqlite_database, 2)
    write(sqlite_database, made, scored(made.image_ids[0], 0.9), failed(made.image_ids[1]))
    result = export(made.job_id)
    assert result.stderr == f"2 images of job {made.job_id}.\n"


def test_a_ranked_export_begins_with_images_without_a_score_and_then_the_highest_probability(
    sqlite_database: Engine, export: Export
) -> None:
    made = add_job(sqlite_database, 7)
    low, fail, high, blurred, tied, _, middle = made.image_ids
    write(
        sqlite_database,
        made,
        scored(low, 0.1),
        failed(fail),
        scored(high, 0.9),
        ungradable(blurred),
        scored(tied, 0.9),
        scored(middle, 0.4),
    )
    result = export(made.job_id, "--ranked")
    order = [(line["rank"], line["path"], line["status"]) for line in lines(result.stdout)]
    assert order == [
        ("", "0/1.jpg", "failed"),
        ("", "0/3.jpg", "ungradable"),
        ("1", "0/4.jpg", "scored"),
        ("2", "0/2.jpg", "scored"),
        ("3", "0/6.jpg", "scored"),
        ("4", "0/0.jpg", "scored"),
        # Without an outcome yet: no reason to look at it first, and the file says so.
        ("", "0/5.jpg", "waiting"),
    ]
    assert "no outcome yet" in lines(result.stdout)[-1]["reason"]
    assert f"7 images of job {made.job_id}, the first 2 without a score: a human must look." in result.stderr
    plain = lines(export(made.job_id).stdout)
    assert [line["path"] for line in plain] == [f"0/{index}.jpg" for index in range(7)]
    assert "rank" not in plain[0]


def test_every_format_tells_the_same(sqlite_database: Engine, export: Export, tmp_path: Path) -> None:
    made = add_job(sqlite_database, 4)
    first, second, third, _ = made.image_ids
    write(sqlite_database, made, scored(first, 0.1), failed(second), scored(third, 0.9))
    as_csv = lines(export(made.job_id, "--ranked").stdout)
    as_json = [json.loads(line) for line in export(made.job_id, "--ranked", "--format", "jsonl").stdout.splitlines()]
    target = tmp_path / "outcomes.parquet"
    assert export(made.job_id, "--ranked", "--format", "parquet", "-o", target).exit_code == 0
    table = parquet.read_table(target)
    assert {name: str(table.schema.field(name).type) for name in ("rank", "probability", "reused", "path")} == {
        "rank": "int64", "probability": "double", "reused": "bool", "path": "string",
    }  # fmt: skip
    for by_csv, by_json, by_parquet in zip(as_csv, as_json, table.to_pylist(), strict=True):
        assert list(by_csv) == list(by_json) == list(by_parquet)
        assert by_json["probability"] == by_parquet["probability"]
        assert by_csv["probability"] == ("" if by_json["probability"] is None else repr(by_json["probability"]))
        for name in ("path", "status", "flag", "reason"):
            assert by_csv[name] == (by_json[name] or "") == (by_parquet[name] or "")
    refused = export(made.job_id, "--format", "parquet")
    assert (refused.exit_code, "Name a file with -o" in refused.stderr) == (2, True)
    assert export(made.job_id, "--worklist", "--format", "jsonl").exit_code == 2


def test_the_worklist_for_people_ranks_lesions_and_leaves_room_for_findings(
    sqlite_database: Engine, export: Export
) -> None:
    made = add_job(sqlite_database, 4)
    first, second, third, fourth = made.image_ids
    write(sqlite_database, made, scored(first, 0.9), scored(second, 0.5), scored(third, 0.123), failed(fourth))
    change(sqlite_database, first, "=L1")
    change(sqlite_database, third, "=L1")
    result = export(made.job_id, "--worklist")
    found = [
        (line["lesion_rank"], line["lesion_id"], line["path"], line["probability"]) for line in lines(result.stdout)
    ]
    assert found == [
        ("", "", "0/3.jpg", ""),
        ("1", "'=L1", "0/0.jpg", "0.90"),
        ("2", "", "0/1.jpg", "0.50"),
        ("1", "'=L1", "0/2.jpg", "0.12"),
    ]
    assert list(lines(result.stdout)[0])[-3:] == ["reviewed", "finding", "comment"]


def change(database: Engine, image_id: int, lesion: str) -> None:
    transact(database, lambda c: c.execute(update(Image).where(Image.id == image_id).values(lesion_id=lesion)))


def test_a_ranked_export_of_many_comes_page_by_page_in_order_and_whole(
    database: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.worklist._PAGE", 10)
    made, other = add_job(database, 35), add_job(database, 3)
    outcomes = [scored(image, (index * 7 % 35) / 35) for index, image in enumerate(made.image_ids)]
    write(database, made, *outcomes)
    write(database, other, scored(other.image_ids[0], 0.99))

    def ranked(connection) -> list[float | None]:
        rows = outcomes_ranked(connection, made.job_id)
        first = next(rows)
        return [first.probability, *(row.probability for row in rows)]

    expected = sorted((outcome.probability for outcome in outcomes), reverse=True)
    assert read(database, ranked) == expected


def entries(database: Engine, made: MadeJob) -> list[dict[str, object]]:
    """What the audit log tells of exports."""
    found = read(database, lambda c: entries_of(c, made.job_id))
    return [json.loads(entry.detail) for entry in found if entry.action == AuditAction.EXPORTED]


def test_a_file_is_the_same_as_the_stream_and_is_logged(
    sqlite_database: Engine, export: Export, tmp_path: Path
) -> None:
    made = add_job(sqlite_database, 3)
    file, link = tmp_path / "outcomes.csv", tmp_path / "link.csv"
    file.write_text("an older one")
    file.chmod(0o640)
    link.symlink_to(file.name)
    assert export(made.job_id, "-o", link).exit_code == 0
    assert file.read_bytes() == export(made.job_id).stdout_bytes
    assert (link.is_symlink(), file.stat().st_mode & 0o777) == (True, 0o640)
    assert sorted(path.name for path in tmp_path.glob("*.csv")) == ["link.csv", "outcomes.csv"]
    assert not list(tmp_path.glob(".*.part"))
    assert entries(sqlite_database, made) == [{"images": 3}, {"images": 3}]


def test_an_older_file_is_replaced_by_a_whole_one_only(
    sqlite_database: Engine, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = add_job(sqlite_database, 3)
    file = tmp_path / "outcomes.csv"
    file.write_text("an older one")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    result = export(made.job_id, "-o", file)
    assert result.exit_code == 2
    assert f"could not be exported to {file}: No space left on device. The earlier file is unchanged" in result.stderr
    assert file.read_text() == "an older one"
    assert not list(tmp_path.glob(".*.part"))
    assert entries(sqlite_database, made) == [{"images": 3}, {"images": 3, "failed": "No space left on device"}]


def test_a_folder_that_is_not_there_is_an_error_in_words(
    sqlite_database: Engine, export: Export, tmp_path: Path
) -> None:
    made = add_job(sqlite_database, 1)
    result = export(made.job_id, "-o", tmp_path / "nowhere" / "outcomes.csv")
    assert result.exit_code == 2
    assert f"There is no folder {tmp_path / 'nowhere'} to write into. Make it, or name another file." in result.stderr
    assert entries(sqlite_database, made) == [], "nothing was exported"


def test_a_reader_that_has_had_enough_is_no_error(sqlite_database: Engine) -> None:
    made = add_job(sqlite_database, 5_000)
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "worker.cli", "export", str(made.job_id)],
        env={**os.environ, "DERMQ_DATABASE_URL": str(sqlite_database.url)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith("path,")
        process.stdout.close()
        said = process.stderr.read()
    assert (process.returncode, said) == (0, "")
    assert entries(sqlite_database, made)[-1] == {"images": 5_000, "failed": "Broken pipe"}


def test_a_file_that_cannot_take_its_place_is_logged_as_failed(
    sqlite_database: Engine, export: Export, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = add_job(sqlite_database, 1)

    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "replace", refuse)
    assert export(made.job_id, "-o", tmp_path / "outcomes.csv").exit_code == 2
    assert entries(sqlite_database, made) == [
        {"images": 1},
        {"images": 1, "failed": "Operation not permitted"},
    ]


@pytest.mark.parametrize("output", [[], ["-o", "/dev/full"]])
def test_a_stream_that_fails_is_an_error_in_words_and_logged(sqlite_database: Engine, output: list[str]) -> None:
    made = add_job(sqlite_database, 1)
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "worker.cli", "export", str(made.job_id), *output],
            env={**os.environ, "DERMQ_DATABASE_URL": str(sqlite_database.url)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert entries(sqlite_database, made)[-1] == {"images": 1, "failed": "No space left on device"}


def test_an_export_to_standard_output_touches_no_temporary_folder(
    sqlite_database: Engine, export: Export, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths and lesions would lie in it, and a full one was reported as a fault of standard output."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    made = add_job(sqlite_database, 3)
    for name in ("mkstemp", "mkdtemp", "TemporaryFile", "NamedTemporaryFile", "SpooledTemporaryFile"):
        monkeypatch.setattr(tempfile, name, full)
    result = export(made.job_id)
    assert result.exit_code == 0
    assert len(lines(result.stdout)) == 3
