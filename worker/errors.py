"""What dermq raises.

DermqError
├── SettingsError        a setting or an argument is wrong
├── BundleError          a bundle is missing, incomplete, or not what its hashes say
├── ManifestError        a CSV manifest or a source folder cannot be taken in
├── SubmissionError      a submission is another process's, or was broken off and waits to be gone on with
├── EngineError          an inference engine cannot be loaded or gave an impossible answer
├── OutputError          an export cannot be written where it should go
├── BrokerError          no Redis or Valkey to start or to reach
└── ImageFaultError      one image cannot be scored; carries a `db.status.FailureCode`
"""

from db.status import FailureCode


class DermqError(Exception):
    """Root of every error that dermq raises on purpose. Its text is meant for the operator."""


class SettingsError(DermqError):
    """A setting or an argument is wrong."""


class BundleError(DermqError):
    """A bundle is missing, incomplete, or not what its hashes say."""


class ManifestError(DermqError):
    """A CSV manifest or a source folder cannot be taken in."""


class SubmissionError(DermqError):
    """A submission is another process's by now, or was broken off and waits to be gone on with."""


class SubmissionInterruptedError(SubmissionError):
    """Ctrl-C broke a submission off that workers had begun with."""


class EngineError(DermqError):
    """An inference engine cannot be loaded, or gave an impossible answer."""


class OutputError(DermqError):
    """An export cannot be written where it should go."""


class BrokerError(DermqError):
    """No Redis or Valkey to start or to reach."""


class ImageFaultError(DermqError):
    """One image cannot be scored.

    Args:
        code: what kind of fault, for counting.
        sentence: what happened, for a person; names no path and no patient, so that it may be logged.
    """

    def __init__(self, code: FailureCode, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
