"""Every status that a row can have, and what it means. The values are what stands in the database."""

from enum import StrEnum


class JobStatus(StrEnum):
    """Where a job is in its life."""

    #: Intake is still adding images; chunks are scored already, but the job cannot finish.
    SUBMITTING = "submitting"
    #: Everything is recorded; no chunk has been claimed yet.
    QUEUED = "queued"
    #: At least one chunk has been claimed.
    RUNNING = "running"
    #: An operator stopped it for now; workers leave its chunks alone.
    PAUSED = "paused"
    #: Every image has ended. The end of a job's life.
    FINISHED = "finished"
    #: An operator gave it up; what was scored stays. The end of a job's life.
    CANCELLED = "cancelled"


class ChunkStatus(StrEnum):
    """Where a chunk, a worker's portion of a job, is."""

    #: Nobody works on it.
    WAITING = "waiting"
    #: A worker owns it until its lease expires.
    LEASED = "leased"
    #: Each of its images has ended.
    DONE = "done"


class ImageStatus(StrEnum):
    """How an image ended: scored + ungradable + failed = submitted, always."""

    #: Not yet looked at.
    WAITING = "waiting"
    #: Has a prediction and a triage flag.
    SCORED = "scored"
    #: Could be read, but not judged: goes to a human.
    UNGRADABLE = "ungradable"
    #: Could not be read or scored; `FailureCode` says why. Goes to a human.
    FAILED = "failed"


class FailureCode(StrEnum):
    """Why an image failed."""

    #: The file was not there when a worker came to read it.
    MISSING = "missing"
    #: The operating system refused to read it (permissions, an input/output error, not a regular file).
    UNREADABLE = "unreadable"
    #: The file is empty or ends too early, or its content is damaged.
    TRUNCATED = "truncated"
    #: More bytes or pixels than the limits allow, or than the worker's memory holds.
    TOO_LARGE = "too_large"
    #: Not a JPEG, PNG, TIFF, BMP or WebP, whatever its name says; or one that holds several pictures.
    UNSUPPORTED_FORMAT = "unsupported_format"
    #: The path, or the symbolic link behind it, leads out of the archive.
    OUTSIDE_ROOT = "outside_root"
    #: The file is not the one that was submitted: its size or time of modification is another.
    CHANGED_SINCE_SUBMISSION = "changed_since_submission"
    #: Workers died twice with this image in hand.
    CRASHED_WORKER = "crashed_worker"
    #: Reading or scoring took longer than the time limit.
    TIMED_OUT = "timed_out"
    #: The engine raised an error on this image.
    ENGINE_ERROR = "engine_error"


class UngradableReason(StrEnum):
    """Why an image that could be read was not judged."""

    #: Fewer pixels on its short side than the quality gate asks for.
    TOO_SMALL = "too_small"
    #: Nearly one tone: a lens cap, an empty frame, a blown-out exposure.
    NO_CONTRAST = "no_contrast"
    #: Less detail than any image the model was trained on.
    BLURRED = "blurred"
    #: Colours, layout and coarseness are not those of dermoscopy: a letter, a screenshot, an X-ray.
    UNLIKE_DERMOSCOPY = "unlike_dermoscopy"


class TriageFlag(StrEnum):
    """What a scored image is to the person who reads the worklist. No value reassures."""

    #: Calibrated probability at or above the policy's threshold.
    HIGH_RISK = "high_risk"
    #: Below the threshold, inside its band of uncertainty.
    BORDERLINE = "borderline"
    #: Lower priority. Never "benign".
    LOW_RISK = "low_risk"
    #: Not judged by the model: to a human.
    UNGRADABLE = "ungradable"


class AuditAction(StrEnum):
    """What was done, in the audit log."""

    #: A job was taken in.
    SUBMITTED = "submitted"
    #: Its last chunk was closed.
    FINISHED = "finished"
    #: An operator stopped it for now.
    PAUSED = "paused"
    #: An operator let it go on.
    RESUMED = "resumed"
    #: An operator gave it up.
    CANCELLED = "cancelled"
    #: An operator had failed images tried again.
    RETRIED = "retried"
    #: Its outcomes left the database as a file or a stream.
    EXPORTED = "exported"
    #: Its images, predictions and patient data were removed.
    DELETED = "deleted"
