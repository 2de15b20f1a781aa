"""The tables."""

from datetime import date, datetime
from enum import StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    Enum,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.status import AuditAction, ChunkStatus, FailureCode, ImageStatus, JobStatus, TriageFlag, UngradableReason
from db.types import UtcDateTime

#: SQLite counts rows up only in a column that is exactly INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")


def _status(kind: type[StrEnum]) -> Enum:
    """Text. Python refuses other values; the database has no CHECK, because each input format brings new codes."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=False,
        validate_strings=True,
        length=32,
        name=kind.__name__.lower(),
        values_callable=lambda members: [member.value for member in members],
    )


class Base(DeclarativeBase):
    """Root of the tables; names every constraint, because a migration can only change what has a name."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class ModelBundle(Base):
    """A bundle that a job was submitted under, by the SHA-256 of its ``bundle.json``."""

    __tablename__ = "model_bundle"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), unique=True)
    name: Mapped[str] = mapped_column(String(200))
    version: Mapped[str] = mapped_column(String(50))
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime())


class Job(Base):
    """An archive to score, with its triage policy."""

    __tablename__ = "job"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    status: Mapped[JobStatus] = mapped_column(_status(JobStatus))
    urgent: Mapped[bool]
    #: Label that the submitter gave it.
    name: Mapped[str | None] = mapped_column(String(100))
    #: Who submitted it, as the audit log names people.
    submitted_by: Mapped[str | None] = mapped_column(String(200))
    #: Hours of the day in which it is scored, such as ``20:00-06:00``, in the site's time. None: always.
    hours: Mapped[str | None] = mapped_column(String(11))
    #: Whether it rests, because it is not one of its hours. The sweeper writes it.
    resting: Mapped[bool] = mapped_column(default=False, server_default=false())
    #: What was told of it last; see `db.notices`.
    notice: Mapped[str | None] = mapped_column(String(32))
    #: Every image path begins here: in a folder, a ZIP or TAR archive, or at an address. No path may lead out of it.
    root: Mapped[str] = mapped_column(String(4096))
    #: The manifest, or None for any other source.
    manifest: Mapped[str | None] = mapped_column(String(4096))
    bundle_id: Mapped[int] = mapped_column(ForeignKey(ModelBundle.id))
    #: ``youden`` or ``sensitivity:X``. Its two thresholds are copied from the bundle, so that nothing moves them.
    policy: Mapped[str] = mapped_column(String(50))
    #: Calibrated probability from which an image is high risk.
    threshold: Mapped[float]
    #: Calibrated probability from which an image is at least borderline.
    borderline_threshold: Mapped[float]
    #: Score files again that were scored earlier with the same bundle.
    force: Mapped[bool] = mapped_column(default=False, server_default=false())
    #: Number of files that were not submitted, by kind. None without any, or before schema 0011.
    passed_over: Mapped[dict[str, int] | None] = mapped_column(JSON(none_as_null=True))
    #: The submitter that still adds images: host, process and a random number. None once all images are recorded.
    submitter: Mapped[str | None] = mapped_column(String(200))
    #: When the submitter counts as dead, unless it renews its lease.
    submitter_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    submitted_at: Mapped[datetime] = mapped_column(UtcDateTime())
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime())


class OutcomeTotals:
    """Columns that count outcomes of images, so that a look at a job reads few rows; `db.totals` writes them."""

    scored: Mapped[int] = mapped_column(default=0, server_default="0")
    ungradable: Mapped[int] = mapped_column(default=0, server_default="0")
    failed: Mapped[int] = mapped_column(default=0, server_default="0")
    high_risk: Mapped[int] = mapped_column(default=0, server_default="0")
    borderline: Mapped[int] = mapped_column(default=0, server_default="0")
    lower_priority: Mapped[int] = mapped_column(default=0, server_default="0")
    #: Scored images whose output was reused from an earlier image with the same bytes and the same bundle.
    reused: Mapped[int] = mapped_column(default=0, server_default="0")
    #: When the newest outcome was written.
    last_completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    #: Failed images by failure code, and ungradable images by reason. None where there are none.
    failure_codes: Mapped[dict[str, int] | None] = mapped_column(JSON(none_as_null=True))
    ungradable_reasons: Mapped[dict[str, int] | None] = mapped_column(JSON(none_as_null=True))
    #: Scored images by calibrated probability, in `db.totals.HISTOGRAM_BINS` bins of equal width. None where none is.
    histogram: Mapped[list[int] | None] = mapped_column(JSON(none_as_null=True))


class ChunkGroup(OutcomeTotals, Base):
    """Some hundred consecutive chunks of a job with their totals."""

    __tablename__ = "chunk_group"
    __table_args__ = (Index(None, "job_id", "settled"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"))
    #: Its chunks and their images.
    chunks: Mapped[int]
    images: Mapped[int]
    #: Whether its totals hold. Otherwise those of its chunks do: a worker has claimed one and not all are done.
    settled: Mapped[bool] = mapped_column(default=True, server_default=true())


_RETRIED = text("attempt > 1")


class Chunk(OutcomeTotals, Base):
    """A worker's portion of a job. Its totals hold unless a worker has it: then the rows of its images are counted."""

    __tablename__ = "chunk"
    __table_args__ = (
        # By hint, too: the sweeper asks for the newest hint of a job that a worker has answered.
        Index(None, "job_id", "status", "hinted_at"),
        Index(None, "status", "hinted_at"),
        Index(None, "group_id", "status"),
        # The newest outcomes of a job, for its rate.
        Index(None, "job_id", "last_completed_at"),
        Index("ix_chunk_retried", "job_id", "id", sqlite_where=_RETRIED, postgresql_where=_RETRIED),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"))
    #: Always set. SQLite adds no NOT NULL column to a table that has rows.
    group_id: Mapped[int] = mapped_column(ForeignKey(ChunkGroup.id), nullable=True)
    status: Mapped[ChunkStatus] = mapped_column(_status(ChunkStatus))
    #: Images that it was made with.
    size: Mapped[int]
    #: Number of claims. The second and later attempts run in isolation mode.
    attempt: Mapped[int] = mapped_column(default=0)
    #: The worker that holds the lease: host, process and a random number of this claim.
    owner: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    #: The worker that closed it: host and process.
    closed_by: Mapped[str | None] = mapped_column(String(200))
    #: When it was last claimed. None for claims from before schema 0009.
    claimed_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    #: When a message about it was last put into the queue.
    hinted_at: Mapped[datetime | None] = mapped_column(UtcDateTime())


class Image(Base):
    """One image of a job, with its manifest data and its outcome."""

    __tablename__ = "image"
    __table_args__ = (
        UniqueConstraint("job_id", "path"),
        Index(None, "chunk_id"),
        Index(None, "job_id", "status", "id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"))
    chunk_id: Mapped[int] = mapped_column(ForeignKey(Chunk.id, ondelete="CASCADE"))
    #: Relative to the job's root, with forward slashes.
    path: Mapped[str] = mapped_column(String(4096))
    #: Size in bytes and modification time in nanoseconds at submission. None when the file was not found.
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    mtime_ns: Mapped[int | None] = mapped_column(BigInteger)
    lesion_id: Mapped[str | None] = mapped_column(String(200))
    patient_ref: Mapped[str | None] = mapped_column(String(200))
    age: Mapped[float | None]
    sex: Mapped[str | None] = mapped_column(String(50))
    site: Mapped[str | None] = mapped_column(String(200))
    #: Of an image that came as DICOM.
    study_uid: Mapped[str | None] = mapped_column(String(64))
    series_uid: Mapped[str | None] = mapped_column(String(64))
    instance_uid: Mapped[str | None] = mapped_column(String(64))
    status: Mapped[ImageStatus] = mapped_column(_status(ImageStatus))
    #: With the status ``waiting``: the code with which it will fail, known at submission.
    failure_code: Mapped[FailureCode | None] = mapped_column(_status(FailureCode))
    ungradable_reason: Mapped[UngradableReason | None] = mapped_column(_status(UngradableReason))
    #: Why it failed or is ungradable, for a person.
    reason: Mapped[str | None] = mapped_column(String(500))
    #: Starts in isolation mode, each committed before the image is touched: a start without an outcome is a crash.
    isolation_starts: Mapped[int] = mapped_column(default=0)
    completed_at: Mapped[datetime | None] = mapped_column(UtcDateTime())


class Prediction(Base):
    """The model's output for one image."""

    __tablename__ = "prediction"
    __table_args__ = (
        # With the id, so that the newest of many copies is found without reading the others.
        Index(None, "image_sha256", "bundle_id", "id"),
        # The worklist's order, read backwards, so that no page of it needs a sort.
        Index(None, "job_id", "probability", "image_id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    #: Unique: a stale worker's second write meets the first instead of adding to it.
    image_id: Mapped[int] = mapped_column(ForeignKey(Image.id, ondelete="CASCADE"), unique=True)
    #: The image's job. Always set, as `Chunk.group_id` is.
    job_id: Mapped[int] = mapped_column(ForeignKey(Job.id), nullable=True)
    image_sha256: Mapped[str] = mapped_column(String(64))
    bundle_id: Mapped[int] = mapped_column(ForeignKey(ModelBundle.id))
    engine: Mapped[str] = mapped_column(String(50))
    #: The network's output, before calibration.
    raw_probability: Mapped[float]
    #: Calibrated probability of melanoma.
    probability: Mapped[float]
    flag: Mapped[TriageFlag] = mapped_column(_status(TriageFlag))
    #: Probability of any malignant class of the bundle, before calibration. None for a bundle with two classes.
    malignant_probability: Mapped[float | None]
    #: Probability of each class by name, before calibration. None for a bundle with two classes.
    class_probabilities: Mapped[dict[str, float] | None] = mapped_column(JSON(none_as_null=True))
    #: Whether the output was reused from an earlier image with the same bytes and the same bundle.
    reused: Mapped[bool] = mapped_column(default=False, server_default=false())
    #: Version of the code that made pixels of the bytes: another one may have read another picture.
    reader: Mapped[int] = mapped_column(default=1, server_default="1")
    #: Measures of the quality gate and of the out-of-distribution gate. None in rows from before schema 0013.
    contrast: Mapped[float | None]
    sharpness: Mapped[float | None]
    ood_score: Mapped[float | None]
    #: What is unusual about the image: values of `db.status.QualityNote` with spaces between. None without notes.
    quality_notes: Mapped[str | None] = mapped_column(String(200))
    #: Where the network sees evidence of melanoma: one byte a place, row by row. Empty where nothing speaks for it.
    evidence: Mapped[bytes | None] = mapped_column(LargeBinary)
    scored_at: Mapped[datetime] = mapped_column(UtcDateTime())


class Feedback(Base):
    """What a reviewer found on an image. A later finding is a new version; none is changed."""

    __tablename__ = "feedback"
    __table_args__ = (UniqueConstraint("image_id", "version"), Index(None, "job_id"))

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey(Job.id))
    image_id: Mapped[int] = mapped_column(ForeignKey(Image.id, ondelete="CASCADE"))
    #: From 1 for each image.
    version: Mapped[int]
    #: What is to be done, and what it is, in the reviewer's words.
    finding: Mapped[str | None] = mapped_column(String(200))
    diagnosis: Mapped[str | None] = mapped_column(String(200))
    comment: Mapped[str | None] = mapped_column(String(500))
    reviewer: Mapped[str] = mapped_column(String(200))
    reviewed_on: Mapped[date | None]
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime())


class AuditEntry(Base):
    """One entry of the audit log. Entries are only appended; each is chained to the one before by a hash."""

    __tablename__ = "audit_entry"
    __table_args__ = (Index(None, "job_id"),)

    #: From 1, without a gap.
    number: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime())
    #: Who acted: the account and host, or the part of dermq.
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[AuditAction] = mapped_column(_status(AuditAction))
    #: Not a foreign key: the entry outlives the job.
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    #: Further facts as JSON with sorted keys: ids and numbers, no patient data.
    detail: Mapped[str] = mapped_column(Text)
    previous_sha256: Mapped[str] = mapped_column(String(64))
    #: Of `previous_sha256` and everything above, as `db.audit` writes it.
    sha256: Mapped[str] = mapped_column(String(64))
