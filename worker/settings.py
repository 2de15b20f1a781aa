"""Settings, each from an environment variable ``DERMQ_<NAME>`` with its default here. docs/settings.md lists them."""

import json
import os
from collections.abc import Callable
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from worker.errors import SettingsError
from worker.url_redaction import broken_broker_password, broken_database_password

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

#: Name of the shipped bundle's folder.
SHIPPED_BUNDLE = "ham10000-mel-nv"
#: File in the home folder by which other commands find a running `dermq up`.
RUN_FILE = "run.json"
#: How alike a variable that is none is to a setting whose misspelling it is taken for; 1 is the same.
_ALIKE = 0.85
#: Seconds at most between a chunk's time limit, at which it is handed back, and the death of a process that hangs.
_MERCY_SECONDS = 30.0


def shipped_bundle() -> Path:
    """The bundle beside the packages in a checkout, or inside the package after an installation."""
    package = Path(__file__).parent
    for models in (package.parent / "models", package / "models"):
        if (models / SHIPPED_BUNDLE).is_dir():
            return models / SHIPPED_BUNDLE
    return package.parent / "models" / SHIPPED_BUNDLE


def _default_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "dermq"


class Settings(BaseSettings):
    """Everything that can be set without changing code."""

    model_config = SettingsConfigDict(env_prefix="DERMQ_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=_default_home)
    """Folder of the default database, the logs, and what `dermq up` notes for other commands."""

    database_url: SecretStr | None = None
    """``sqlite:////absolute/path`` or ``postgresql://user:password@host/name``; default: ``dermq.db`` in the home."""

    broker_url: SecretStr | None = None
    """``redis://:password@host:port/0``; default: the broker of a running `dermq up`, else the local port 6379."""

    bundle: Path | None = None
    """Folder of the bundle that jobs are submitted under and workers score with; default: that of a running `dermq up`,
    else the shipped one."""

    engine: Literal["openvino", "tensorflow"] = "openvino"
    """Inference engine; ``tensorflow`` is the reference and needs the extra of that name."""

    concurrency: int = Field(default_factory=lambda: os.cpu_count() or 1, ge=1, le=256)
    """Processes that a worker scores with, one engine thread each; default: the number of processors."""

    chunk_size: int = Field(default=128, ge=1, le=10_000)
    """Images in a chunk, the unit that a worker takes and Flower shows."""

    batch_size: int = Field(default=16, ge=1, le=256)
    """Images read, scored and written in one transaction."""

    lease_seconds: float = Field(default=60.0, ge=1, le=3600)
    """Seconds that a chunk stays a silent worker's, and a job a silent submitter's; whoever lives renews it."""

    sweep_seconds: float = Field(default=5.0, gt=0, le=600)
    """Seconds between two sweeps for chunks that nobody works on."""

    hint_seconds: float = Field(default=30.0, ge=0.5, le=3600)
    """Seconds that a hint may go unanswered, the queue being empty or past it, before the sweeper sends another."""

    chunk_time_limit: int = Field(default=300, ge=5, le=86_400)
    """Seconds after which a chunk is handed back or a single suspect image given up; what hangs is killed later."""

    max_file_bytes: int = Field(default=100 * 1024 * 1024, ge=1024, le=2**31 - 1)
    """Size of the largest image file that is read, in bytes."""

    flower_address: str = Field(default="127.0.0.1", min_length=1)
    """Address that Flower listens on."""

    flower_port: int = Field(default=0, ge=0, le=65535)
    """Port that Flower listens on; 0 means 5555, and for `dermq up` any free one when 5555 is taken."""

    flower_password: SecretStr | None = None
    """Password of Flower's user ``dermq``; default: `dermq up` draws one and prints it, `dermq flower` refuses."""

    log_format: Literal["auto", "console", "json"] = "auto"
    """Log lines for people or for machines; ``auto`` looks whether standard error is a terminal."""

    @field_validator("home", "bundle", mode="before")
    @classmethod
    def _folder_is_named(cls, folder: object) -> object:
        if folder == "":
            # It would be the folder that somebody happens to stand in, a home's patient data and all.
            raise ValueError("an empty path is none")
        return folder

    @field_validator("flower_password")
    @classmethod
    def _flower_takes_it(cls, password: SecretStr | None) -> SecretStr | None:
        return _refuse(password, lambda held: None if held.isascii() else "Flower takes ASCII characters alone")

    @field_validator("database_url")
    @classmethod
    def _database_password(cls, url: SecretStr | None) -> SecretStr | None:
        # Here and not where it is used: there a part of the password would be taken for the host and shown as that.
        return _refuse(url, broken_database_password)

    @field_validator("broker_url")
    @classmethod
    def _broker_password(cls, url: SecretStr | None) -> SecretStr | None:
        return _refuse(url, broken_broker_password)

    def resolved_database_url(self) -> str:
        """The database's address, the default included."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{(self.home / 'dermq.db').absolute()}"

    def resolved_broker_url(self) -> str:
        """The broker's address, that of a running `dermq up` included."""
        if self.broker_url is not None:
            return self.broker_url.get_secret_value()
        return self._noted("broker_url") or "redis://127.0.0.1:6379/0"

    def resolved_bundle(self) -> Path:
        """The bundle's folder, that of a running `dermq up` included: its workers refuse jobs under any other."""
        return self.bundle or self.running_bundle() or shipped_bundle()

    def running_bundle(self) -> Path | None:
        """The folder of the bundle that a `dermq up` of this home left word of, and that its workers score with."""
        noted = self._noted("bundle")
        return Path(noted) if noted else None

    def is_up(self) -> bool:
        """Whether the `dermq up` that left word runs: one that was killed leaves it too."""
        pid = self._noted("pid")
        # The host tells it for whichever account runs it.
        return pid is not None and pid.isdigit() and Path("/proc", pid).is_dir()

    def _noted(self, name: str) -> str | None:
        """What a running `dermq up` left word of."""
        try:
            return str(json.loads((self.home / RUN_FILE).read_text())[name])
        except (OSError, ValueError, KeyError):
            return None


def _refuse(url: SecretStr | None, fault: Callable[[str], str | None]) -> SecretStr | None:
    if url is not None and (why := fault(url.get_secret_value())) is not None:
        raise ValueError(why)
    return url


def hard_time_limit(time_limit: float) -> float:
    """Seconds after which a process is killed that did not heed its chunk's time limit: it hangs outside Python."""
    return time_limit + min(_MERCY_SECONDS, time_limit)


def _misspelt() -> list[str]:
    """Variables that look like a setting and are none: what an operator set would otherwise silently not hold."""
    settings = [f"DERMQ_{name.upper()}" for name in Settings.model_fields]
    unknown = sorted(name for name in os.environ if name.startswith("DERMQ_") and name not in settings)
    return [
        f"{name}: there is no such setting; expected {alike[0]}"
        for name in unknown
        if (alike := get_close_matches(name, settings, n=1, cutoff=_ALIKE))
    ]


def _expected(fault: "ErrorDetails") -> str:
    return "it is empty; leave it out or give it a value" if fault["input"] == "" else fault["msg"]


@cache
def load_settings() -> Settings:
    """Read the environment once.

    Raises:
        SettingsError: names each variable that is wrong or misspelt and what was expected; what it held is not
            repeated, for it may be a secret.
    """
    lines = _misspelt()
    try:
        settings = Settings()
    except ValidationError as error:
        lines += [
            f"DERMQ_{'_'.join(str(part) for part in fault['loc']).upper()}: {_expected(fault)}"
            for fault in error.errors()
        ]
    if lines:
        raise SettingsError("Settings are wrong. " + "; ".join(lines) + ". See docs/settings.md.")
    return settings
