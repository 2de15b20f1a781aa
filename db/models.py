"""The tables."""

from datetime import datetime
from enum import StrEnum

from sqlalchemy import (
    JSON,
    BigInteger,
    Enum,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Text,
    UniqueConstraint,
    false,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.status import AuditAction, ChunkStatus, FailureCode, ImageStatus, JobStatus, TriageFlag, UngradableReason
from db.types import UtcDateTime

#: SQLite counts rows up only in a column that is exactly INTEGER.
RowId = BigInteger().with_variant(Integer, "sqlite")


def _status(kind: type[StrEnum]) -> Enum:
    """Text with a CHECK of its values, on either database, so that a migration can add one."""
    return Enum(
        kind,
        native_enum=False,
        create_constraint=True,
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
    """An archive to score, with the triage policy it is judged by."""

    __tablename__ = "job"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    status: Mapped[JobStatus] = mapped_column(_status(JobStatus))
    urgent: Mapped[bool]
    #: Folder that every image path is relative to and that none may leave.
    root: Mapped[str] = mapped_column(String(4096))
    #: The CSV manifest, or None for a folder.
    manifest: Mapped[str | None] = mapped_column(String(4096))
    bundle_id: Mapped[int] = mapped_column(ForeignKey(ModelBundle.id))
    #: ``youden`` or ``sensitivity:X``; the numbers are the bundle's for it, copied so that nothing moves them.
    policy: Mapped[str] = mapped_column(String(50))
    #: Calibrated probability from which an image is high risk.
    threshold: Mapped[float]
    #: Calibrated probability from which an image is at least borderline.
    borderline_from: Mapped[float]
    #: Score even what was scored before under this bundle.
    force: Mapped[bool] = mapped_column(default=False, server_default=false())
    #: The intake that still adds images: its host, process and a number drawn at its start; None once all are in.
    submitter: Mapped[str | None] = mapped_column(String(200))
    #: When the intake counts as dead, unless it renews.
    submitter_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    submitted_at: Mapped[datetime] = mapped_column(UtcDateTime())
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime())


class Chunk(Base):
    """A worker's portion of a job."""

    __tablename__ = "chunk"
    __table_args__ = (Index(None, "job_id", "status"), Index(None, "status", "hinted_at"))

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"))
    status: Mapped[ChunkStatus] = mapped_column(_status(ChunkStatus))
    size: Mapped[int]
    #: Times it was claimed. The second and later are in careful mode.
    attempt: Mapped[int] = mapped_column(default=0)
    #: The worker that holds the lease: its host, process and a number drawn at the claim.
    owner: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime())
    #: When a message about it was last put into the queue.
    hinted_at: Mapped[datetime | None] = mapped_column(UtcDateTime())


class Image(Base):
    """One image of a job, what the manifest said of it, and how it ended."""

    __tablename__ = "image"
    __table_args__ = (UniqueConstraint("job_id", "path"), Index(None, "chunk_id"), Index(None, "job_id", "status"))

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey(Job.id, ondelete="CASCADE"))
    chunk_id: Mapped[int] = mapped_column(ForeignKey(Chunk.id, ondelete="CASCADE"))
    #: Relative to the job's root, with forward slashes.
    path: Mapped[str] = mapped_column(String(4096))
    #: Size in bytes and time of modification in nanoseconds at submission; None when the file could not be seen.
    size_bytes: Mapped[int | None] = mapped_column(BigInteger)
    modified_ns: Mapped[int | None] = mapped_column(BigInteger)
    lesion_id: Mapped[str | None] = mapped_column(String(200))
    patient_ref: Mapped[str | None] = mapped_column(String(200))
    age: Mapped[float | None]
    sex: Mapped[str | None] = mapped_column(String(50))
    site: Mapped[str | None] = mapped_column(String(200))
    status: Mapped[ImageStatus] = mapped_column(_status(ImageStatus))
    failure_code: Mapped[FailureCode | None] = mapped_column(_status(FailureCode))
    ungradable_reason: Mapped[UngradableReason | None] = mapped_column(_status(UngradableReason))
    #: Why it failed or was not judged, for a person.
    reason: Mapped[str | None] = mapped_column(String(500))
    #: Times careful mode began with it: committed before it is touched, so a count without an end is a death.
    careful_starts: Mapped[int] = mapped_column(default=0)
    ended_at: Mapped[datetime | None] = mapped_column(UtcDateTime())


class Prediction(Base):
    """What the model said of an image."""

    __tablename__ = "prediction"
    __table_args__ = (Index(None, "image_sha256", "bundle_id"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    #: Unique: a stale worker's second write meets the first instead of adding to it.
    image_id: Mapped[int] = mapped_column(ForeignKey(Image.id, ondelete="CASCADE"), unique=True)
    image_sha256: Mapped[str] = mapped_column(String(64))
    bundle_id: Mapped[int] = mapped_column(ForeignKey(ModelBundle.id))
    engine: Mapped[str] = mapped_column(String(50))
    #: The network's output, before calibration.
    raw_probability: Mapped[float]
    #: Calibrated probability of melanoma.
    probability: Mapped[float]
    flag: Mapped[TriageFlag] = mapped_column(_status(TriageFlag))
    #: Of any malignancy that the bundle knows, before calibration; None when the bundle has two classes only.
    malignant_probability: Mapped[float | None]
    #: Of each of the bundle's classes by name, before calibration; None as above.
    class_probabilities: Mapped[dict[str, float] | None] = mapped_column(JSON(none_as_null=True))
    #: Whether the same bytes had been scored under this bundle before, so that nothing was inferred for this image.
    reused: Mapped[bool] = mapped_column(default=False, server_default=false())
    scored_at: Mapped[datetime] = mapped_column(UtcDateTime())


class AuditEntry(Base):
    """One line of the audit log: appended, never changed, each sealed by the hash of the one before."""

    __tablename__ = "audit_entry"
    __table_args__ = (Index(None, "job_id"),)

    #: From 1, without a gap.
    number: Mapped[int] = mapped_column(RowId, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(UtcDateTime())
    #: Who: the user's account and host, or the part of the system that acted.
    actor: Mapped[str] = mapped_column(String(200))
    action: Mapped[AuditAction] = mapped_column(_status(AuditAction))
    #: Not a foreign key: the entry outlives the job.
    job_id: Mapped[int | None] = mapped_column(BigInteger)
    #: What else there is to know, as JSON with sorted keys; ids and figures, no patient data.
    detail: Mapped[str] = mapped_column(Text)
    previous_sha256: Mapped[str] = mapped_column(String(64))
    #: Of `previous_sha256` and everything above, as `db.audit` writes it.
    sha256: Mapped[str] = mapped_column(String(64))
