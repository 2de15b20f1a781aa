"""Settings. Each is an environment variable ``DERMQ_<NAME>`` with a default here; docs/settings.md lists them."""

import json
import os
import shlex
from collections.abc import Callable
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict
from sqlalchemy import URL

from worker.errors import SettingsError
from worker.limits import default_concurrency
from worker.processor import has_bfloat16
from worker.regular_files import read_regular
from worker.url_redaction import broken_broker_password, broken_database_password

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

#: Name of the shipped bundle's folder. Its twin in 32-bit floats, for older processors, has the ending ``-float32``.
SHIPPED_BUNDLE = "ham10000-mel-nv"
#: File in the home folder by which other commands find a running `dermq up`.
RUN_FILE = "run.json"
#: Similarity, up to 1, from which an unknown variable counts as a misspelt setting.
_SIMILARITY = 0.85
#: Characters of the shortest key of pseudonyms.
_MIN_KEY = 16
#: Settings that were renamed.
_RENAMED = {"DERMQ_HINT_SECONDS": "DERMQ_HINT_TIMEOUT", "DERMQ_SWEEP_SECONDS": "DERMQ_SWEEP_INTERVAL"}
#: Greatest number of seconds between a chunk's time limit, at which it is released, and the kill of a hung process.
_GRACE_SECONDS = 30.0


def shipped_bundle() -> Path:
    """The bundle of a checkout, or of the installed package: the fastest that this processor can compute."""
    package = Path(__file__).parent
    models = (package.parent / "models", package / "models")
    folder = next((each for each in models if (each / SHIPPED_BUNDLE).is_dir()), models[0])
    plain = folder / f"{SHIPPED_BUNDLE}-float32"
    return plain if plain.is_dir() and not has_bfloat16() else folder / SHIPPED_BUNDLE


def _default_home() -> Path:
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "dermq"


class Settings(BaseSettings):
    """Everything that can be set without changing code. The docstring of a field is its description."""

    model_config = SettingsConfigDict(env_prefix="DERMQ_", frozen=True, extra="ignore")

    home: Path = Field(default_factory=_default_home)
    """Folder of the default database, of the logs, and of the file by which commands find a running `dermq up`."""

    database_url: SecretStr | None = None
    """``sqlite:////absolute/path`` or ``postgresql://user:password@host/name``. Default: ``dermq.db`` in the home."""

    broker_url: SecretStr | None = None
    """``redis://:password@host:port/0``. Default: the broker of a running `dermq up`, else the local port 6379."""

    bundle: Path | None = None
    """Folder of the bundle for submitting and scoring. Default: that of a running `dermq up`, else the shipped one."""

    engine: Literal["openvino", "tensorflow"] = "openvino"
    """Inference engine. ``tensorflow`` is the reference and needs the extra of that name."""

    concurrency: int = Field(default_factory=default_concurrency, ge=1, le=256)
    """Processes of a worker, with one engine thread each. Default: as many as the processors
    and the memory that this process may use allow.
    """

    chunk_size: int = Field(default=128, ge=1, le=10_000)
    """Images in a chunk, the unit that a worker claims and Flower shows."""

    batch_size: int = Field(default=64, ge=1, le=256)
    """Images that are read, scored and written in one transaction."""

    lease_seconds: float = Field(default=60.0, ge=1, le=3600)
    """Seconds until another process may take over from a silent worker or submitter. A live one renews its lease."""

    sweep_interval: float = Field(default=5.0, gt=0, le=600)
    """Seconds between two sweeps for chunks without a worker."""

    hint_timeout: float = Field(default=30.0, ge=0.5, le=3600)
    """Seconds until an unanswered hint counts as lost and the sweeper sends another."""

    chunk_time_limit: int = Field(default=300, ge=5, le=86_400)
    """Seconds after which a worker releases a chunk or gives up a single suspect image. A hung process is killed
    later.
    """

    stall_seconds: float = Field(default=120.0, ge=1, le=86_400)
    """Seconds without a finished image after which a running job counts as stalled."""

    max_file_bytes: int = Field(default=100 * 1024 * 1024, ge=1024, le=2**31 - 1)
    """Largest image file that is read, in bytes."""

    flower_address: str = Field(default="127.0.0.1", min_length=1)
    """Address that Flower listens on."""

    flower_port: int = Field(default=0, ge=0, le=65535)
    """Port that Flower listens on. 0 means 5555; `dermq up` takes any free port when 5555 is taken."""

    flower_users: Path | None = None
    """File of the accounts of `dermq users`. Default: ``flower-users.json`` in the home."""

    flower_read_only: bool = False
    """Whether nobody may control jobs in Flower, whatever the role."""

    flower_url_prefix: str = Field(default="", pattern=r"^[\w/.~-]*$")
    """Path under which a proxy shows Flower, such as ``flower``."""

    flower_behind_proxy: bool = False
    """Whether a proxy, and nobody else, reaches Flower and tells the client's address as ``X-Real-Ip``."""

    flower_certificate: Path | None = None
    """Certificate for TLS, as PEM. Flower then answers HTTPS only."""

    flower_key: Path | None = None
    """Key of the certificate, as PEM."""

    notify_url: SecretStr | None = None
    """Address that the sweeper posts JSON to when a job finishes, fails or stalls."""

    notify_command: str = ""
    """Command that the sweeper runs then, with the JSON as standard input."""

    pseudonym_key: SecretStr | None = None
    """Key of the hash by which `dermq submit --pseudonymise` replaces patient references. At least 16 characters."""

    dicomweb_user: str = ""
    """Account with which DICOMweb is asked (HTTP Basic)."""

    dicomweb_password: SecretStr | None = None
    """Its password."""

    dicomweb_token: SecretStr | None = None
    """Bearer token with which DICOMweb is asked, in place of an account."""

    metrics_token: SecretStr | None = None
    """Token with which Prometheus reads ``/metrics``. Without one, it signs in with a name and a password."""

    flower_password: SecretStr | None = None
    """Password of Flower's account ``dermq``, an operator. Default: `dermq up` makes one and prints it."""

    time_zone: str = ""
    """Time zone of the hours of ``dermq submit --between``, such as ``Europe/Berlin``. Default: that of the machine."""

    actor: str = Field(default="", max_length=100)
    """Name for the audit log of who runs a command, beside the account. For containers, where all are one account."""

    log_format: Literal["auto", "console", "json"] = "auto"
    """Form of the log lines. ``auto`` writes for people on a terminal, JSON otherwise."""

    @field_validator("home", "bundle", "flower_users", "flower_certificate", "flower_key", mode="before")
    @classmethod
    def _folder_is_named(cls, folder: object) -> object:
        if folder == "":
            # It would be the current folder, whatever that is.
            raise ValueError("the path is empty")
        return folder

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, name: str) -> str:
        try:
            if name:
                ZoneInfo(name)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError("no such time zone is known. Write a name such as Europe/Berlin") from None
        return name

    @field_validator("actor")
    @classmethod
    def _is_one_line(cls, name: str) -> str:
        if name and not (name.strip() and name.isprintable()):
            raise ValueError("the name is blank, or holds characters that cannot be printed on one line")
        return name.strip()

    @field_validator("pseudonym_key")
    @classmethod
    def _is_long_enough(cls, key: SecretStr | None) -> SecretStr | None:
        return _refuse(
            key,
            lambda held: (
                None if len(held) >= _MIN_KEY else f"it has fewer than {_MIN_KEY} characters, and can be guessed"
            ),
        )

    @field_validator("notify_url")
    @classmethod
    def _is_an_address(cls, url: SecretStr | None) -> SecretStr | None:
        return _refuse(
            url, lambda held: None if _is_http(held) else "it must begin with http:// or https:// and a host"
        )

    @field_validator("notify_command")
    @classmethod
    def _is_a_command(cls, command: str) -> str:
        # Raises a ValueError that says what is wrong.
        shlex.split(command)
        return command

    @field_validator("flower_password")
    @classmethod
    def _flower_takes_it(cls, password: SecretStr | None) -> SecretStr | None:
        return _refuse(password, lambda held: None if held.isascii() else "Flower accepts only ASCII characters")

    @field_validator("database_url")
    @classmethod
    def _database_password(cls, url: SecretStr | None) -> SecretStr | None:
        # Here, not where it is used: there a part of the password would be taken for the host, and shown.
        return _refuse(url, broken_database_password)

    @field_validator("broker_url")
    @classmethod
    def _broker_password(cls, url: SecretStr | None) -> SecretStr | None:
        return _refuse(url, broken_broker_password)

    def local_time(self) -> datetime:
        """The time at this site."""
        return datetime.now(ZoneInfo(self.time_zone)) if self.time_zone else datetime.now().astimezone()

    def resolved_database_url(self) -> str:
        """URL of the database."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        # From parts: a path may hold characters that have a meaning in URLs.
        path = str((self.home / "dermq.db").absolute())
        return URL.create("sqlite", database=path).render_as_string(hide_password=False)

    def resolved_broker_url(self) -> str:
        """URL of the broker."""
        if self.broker_url is not None:
            return self.broker_url.get_secret_value()
        return self._recorded("broker_url") or "redis://127.0.0.1:6379/0"

    def resolved_bundle(self) -> Path:
        """Folder of the bundle."""
        return self.bundle or self.running_bundle() or shipped_bundle()

    def running_bundle(self) -> Path | None:
        """Folder of the bundle of a running `dermq up`. Its workers refuse jobs of any other bundle."""
        recorded = self._recorded("bundle")
        return Path(recorded) if recorded else None

    def is_up(self) -> bool:
        """Whether a `dermq up` of this home runs. The file alone does not tell: a killed one leaves it."""
        pid = self._recorded("pid")
        # /proc shows processes of other accounts too.
        return pid is not None and pid.isdigit() and Path("/proc", pid).is_dir()

    def _recorded(self, name: str) -> str | None:
        """A value that `dermq up` recorded for other commands."""
        try:
            return str(json.loads(read_regular(self.home / RUN_FILE))[name])
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _is_http(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def _refuse(url: SecretStr | None, fault: Callable[[str], str | None]) -> SecretStr | None:
    if url is not None and (why := fault(url.get_secret_value())) is not None:
        raise ValueError(why)
    return url


def hard_time_limit(time_limit: float) -> float:
    """Seconds after which a process is killed that hangs outside Python, where the soft time limit cannot reach it."""
    return time_limit + min(_GRACE_SECONDS, time_limit)


def _unknown_variables() -> list[str]:
    """A sentence for each variable that was renamed or looks like a misspelt setting, which would have no effect."""
    settings = [f"DERMQ_{name.upper()}" for name in Settings.model_fields]
    unknown = sorted(name for name in os.environ if name.startswith("DERMQ_") and name not in settings)
    renamed = [f"{name} is now called {_RENAMED[name]}" for name in unknown if name in _RENAMED]
    return renamed + [
        f"{name} is no setting; the nearest one is {similar[0]}"
        for name in unknown
        if name not in _RENAMED and (similar := get_close_matches(name, settings, n=1, cutoff=_SIMILARITY))
    ]


def _expected(fault: "ErrorDetails") -> str:
    return (
        "it is empty. Unset it or give it a value"
        if fault["input"] == ""
        else fault["msg"].removeprefix("Value error, ").replace("Input should", "it must")
    )


@cache
def load_settings() -> Settings:
    """Read the environment once.

    Raises:
        SettingsError: names each variable that is wrong, renamed or misspelt. It never shows a value, which may be a
            secret.
    """
    lines = _unknown_variables()
    try:
        settings = Settings()
    except ValidationError as error:
        lines += [
            f"DERMQ_{'_'.join(str(part) for part in fault['loc']).upper()}: {_expected(fault)}"
            for fault in error.errors()
        ]
    if lines:
        raise SettingsError("Wrong settings. " + "; ".join(lines) + ". See docs/settings.md.")
    return settings
