"""A job as operators see it, for tests of what is written about one."""

from datetime import UTC, datetime

from db.jobs import JobView
from db.status import JobStatus

JOB = JobView(
    id=7, status=JobStatus.FINISHED, urgent=False, name=None, submitted_by="x", hours=None, resting=False,
    root="/archive", manifest=None, bundle_name="synthetic", bundle_version="1", bundle_sha256="b" * 64, bundle_id=1,
    policy="youden", threshold=0.25, borderline_threshold=0.2, interrupted=False, passed_over=None,
    submitted_at=datetime(2026, 1, 1, tzinfo=UTC), started_at=None, finished_at=None,
)  # fmt: skip
