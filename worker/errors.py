"""The errors that dermq raises on purpose. Their texts are written for the operator.

DermqError
├── SettingsError        a setting or an argument is wrong
├── BundleError          a bundle is missing, incomplete, or does not match its hashes
├── ManifestError        a manifest or another source cannot be read
├── SubmissionError      a submission belongs to another process, or was interrupted and can be resumed
│   └── SubmissionInterruptedError
├── EngineError          an inference engine cannot be loaded, or returned an impossible output
├── OutputError          an export cannot be written
├── BrokerError          no Redis or Valkey can be started or reached
├── DatabaseError        the database cannot be used
└── ImageFaultError      one image cannot be scored; carries a `db.status.FailureCode`
"""

from db.status import FailureCode


class DermqError(Exception):
    """Root of every error that dermq raises on purpose."""


class SettingsError(DermqError):
    """A setting or an argument is wrong."""


class BundleError(DermqError):
    """A bundle is missing, incomplete, or does not match its hashes."""


class ManifestError(DermqError):
    """A manifest or another source cannot be read."""


class SubmissionError(DermqError):
    """A submission belongs to another process, or was interrupted and can be resumed."""


class SubmissionInterruptedError(SubmissionError):
    """Ctrl-C interrupted a submission of which workers had already claimed a chunk."""


class EngineError(DermqError):
    """An inference engine cannot be loaded, or returned an impossible output."""


class OutputError(DermqError):
    """An export cannot be written."""


class BrokerError(DermqError):
    """No Redis or Valkey can be started or reached."""


class DatabaseError(DermqError):
    """The database cannot be used."""


class ImageFaultError(DermqError):
    """One image cannot be scored.

    Args:
        code: the kind of fault, for counting.
        sentence: what is wrong, for a person. It names no path and no patient, so that it may be logged.
    """

    def __init__(self, code: FailureCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
