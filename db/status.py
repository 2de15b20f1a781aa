"""Every status of a row and its meaning. The values are stored in the database."""

from enum import StrEnum


class JobStatus(StrEnum):
    """The state of a job."""

    #: `dermq submit` is still adding images. Workers score chunks already, but the job cannot finish.
    SUBMITTING = "submitting"
    #: Every image is recorded. No worker has claimed a chunk yet.
    QUEUED = "queued"
    #: A worker has claimed at least one chunk.
    RUNNING = "running"
    #: An operator paused it. Workers leave its chunks alone.
    PAUSED = "paused"
    #: Every image has an outcome. Final, unless failed images are retried.
    FINISHED = "finished"
    #: An operator cancelled it. Outcomes so far are kept. Final.
    CANCELLED = "cancelled"
    #: Its rows are being deleted. The same command finishes a deletion that was interrupted.
    DELETING = "deleting"


class ChunkStatus(StrEnum):
    """The state of a chunk, the part of a job that one worker claims."""

    #: No worker has it.
    WAITING = "waiting"
    #: A worker has it until its lease expires.
    LEASED = "leased"
    #: Each of its images has an outcome.
    DONE = "done"


class ImageStatus(StrEnum):
    """The outcome of an image. In a finished job, scored + ungradable + failed = submitted."""

    #: No outcome yet.
    WAITING = "waiting"
    #: Has a prediction and a triage flag.
    SCORED = "scored"
    #: Could be read, but not scored: a human must look. `UngradableReason` says why.
    UNGRADABLE = "ungradable"
    #: Could not be read or scored: a human must look. `FailureCode` says why.
    FAILED = "failed"


class FailureCode(StrEnum):
    """Why an image failed."""

    #: The file was not there when a worker came to read it.
    MISSING = "missing"
    #: The operating system refused to read it: permissions, an input/output error, or not a regular file.
    UNREADABLE = "unreadable"
    #: The file is empty, cut short or damaged.
    TRUNCATED = "truncated"
    #: More bytes or pixels than the limits allow, or than the worker's memory holds.
    TOO_LARGE = "too_large"
    #: By its content, of no kind that is read (docs/formats.md), or a file with several pictures.
    UNSUPPORTED_FORMAT = "unsupported_format"
    #: The path or a symbolic link leads out of the archive.
    OUTSIDE_ROOT = "outside_root"
    #: The file's size or modification time is not what it was at submission.
    CHANGED_SINCE_SUBMISSION = "changed_since_submission"
    #: Two workers crashed while they processed this image.
    CRASHED_WORKER = "crashed_worker"
    #: Reading or scoring took longer than the time limit.
    TIMED_OUT = "timed_out"
    #: The engine raised an error on this image.
    ENGINE_ERROR = "engine_error"


class UngradableReason(StrEnum):
    """Why an image that could be read was not scored."""

    #: Its short side has fewer pixels than the quality gate requires.
    TOO_SMALL = "too_small"
    #: Nearly one tone: a lens cap, an empty frame, an overexposed picture.
    NO_CONTRAST = "no_contrast"
    #: Less detail than the training images have.
    BLURRED = "blurred"
    #: Far darker than the training images.
    TOO_DARK = "too_dark"
    #: Far brighter than the training images.
    TOO_BRIGHT = "too_bright"
    #: Mostly white: reflections, or a page of paper.
    GLARE = "glare"
    #: Mostly the dark frame of a dermatoscope.
    DARK_FRAME = "dark_frame"
    #: Colours, layout and texture are not those of dermoscopy: a letter, a screenshot, an X-ray.
    OUT_OF_DISTRIBUTION = "out_of_distribution"


class QualityNote(StrEnum):
    """Something unusual about a scored image. Its probability may be worth less."""

    #: Less contrast than nearly all training images.
    LOW_CONTRAST = "low_contrast"
    #: Less sharp.
    BLURRED = "blurred"
    #: Darker.
    DARK = "dark"
    #: Brighter.
    BRIGHT = "bright"
    #: More white reflections.
    GLARE = "glare"
    #: A wider dark frame.
    DARK_FRAME = "dark_frame"
    #: More hair, or other dark lines.
    HAIR = "hair"
    #: Further from dermoscopy.
    UNUSUAL = "unusual"


class TriageFlag(StrEnum):
    """What the reader of the worklist should do with an image. No value reassures."""

    #: Calibrated probability at or above the policy's threshold.
    HIGH_RISK = "high_risk"
    #: Below the threshold, but inside its band of uncertainty.
    BORDERLINE = "borderline"
    #: Look at it later. It does not mean benign.
    LOWER_PRIORITY = "lower_priority"
    #: Not scored by the model: a human must look.
    UNGRADABLE = "ungradable"


class AuditAction(StrEnum):
    """An action in the audit log."""

    #: A job was submitted.
    SUBMITTED = "submitted"
    #: Its last chunk was closed.
    FINISHED = "finished"
    #: An operator paused it.
    PAUSED = "paused"
    #: An operator resumed it.
    RESUMED = "resumed"
    #: An operator cancelled it.
    CANCELLED = "cancelled"
    #: An operator had failed images scored again.
    RETRIED = "retried"
    #: Its outcomes were exported.
    EXPORTED = "exported"
    #: Reviewers' findings were recorded.
    REVIEWED = "reviewed"
    #: A share of its images was scored with a second bundle, to compare the two.
    COMPARED = "compared"
    #: Its images, predictions and patient data were deleted.
    DELETED = "deleted"
