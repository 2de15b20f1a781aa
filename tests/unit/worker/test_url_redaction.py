"""No part of a password is shown, whatever it holds and wherever it stands in an address."""

from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from db.session import DatabaseUrlError, open_database
from worker.cli import main
from worker.settings import Settings, load_settings
from worker.url_redaction import broken_broker_password, shown_broker, shown_database, without_password

#: Of which a part is taken for something else when it stands in an address as it is.
DATABASES = ["postgresql://dermq:correct@horse@db/dermq", "postgresql://:correct@horse@db/dermq"]
BROKERS = ["redis://:correct/horse@host/0", "redis://:correct#horse@host/0", "redis://:correct?horse@host/0"]
BROKERS += [
    "redis://dermq:12/correct-horse@host/0",
    "redis://host/0?password=correct-horse",
    "redis://[correct-horse@h",
]


@pytest.fixture(autouse=True)
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DERMQ_{name.upper()}", raising=False)
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


@pytest.mark.parametrize(
    ("variable", "url"),
    [*(("DERMQ_DATABASE_URL", url) for url in DATABASES), *(("DERMQ_BROKER_URL", url) for url in BROKERS)],
)
def test_a_password_that_falls_apart_is_refused_and_no_part_of_it_said(
    monkeypatch: pytest.MonkeyPatch, variable: str, url: str
) -> None:
    monkeypatch.setenv(variable, url)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 2
    assert variable in result.stderr
    assert not any(part in result.output for part in ("correct", "horse"))


@pytest.mark.parametrize(
    "url", ["", "localhost:6379", "redis:correct-horse@host:6379/0", "http://:correct-horse@host:6379"]
)
def test_a_broker_of_another_scheme_or_none_is_refused_with_the_form_of_an_address(
    monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("DERMQ_BROKER_URL", url)
    result = CliRunner().invoke(main, ["check"])
    assert result.exit_code == 2
    assert "DERMQ_BROKER_URL" in result.stderr
    assert "redis://:password@host:port/0" in result.stderr or "it is empty" in result.stderr
    assert "correct" not in result.output


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("database_url", "postgresql://dermq:c%40rrect%2F@db/dermq"),
        ("database_url", "postgresql://dermq:a/b#c?d@db/dermq"),
        ("database_url", "postgresql://dermq@/test?host=/tmp/a@b"),
        ("database_url", "sqlite:////tmp/a@b/dermq.db"),
        ("database_url", "nonsense"),
        ("broker_url", "redis://:correct@horse@host:6379/0"),
        ("broker_url", "redis://dermq:correct%2Fhorse@host:6379/0"),
        ("broker_url", "redis://host:6379/0"),
        ("broker_url", "rediss://:correct%40horse@host:6379/0"),
        ("broker_url", "memory://"),
    ],
)
def test_whatever_else_works_or_is_refused_elsewhere_stays(name: str, url: str) -> None:
    assert getattr(Settings(**{name: url}), name).get_secret_value() == url  # type: ignore[arg-type]


def test_a_database_is_shown_without_passwords_wherever_they_stand() -> None:
    shown = shown_database("postgresql://dermq:correct-horse@db/dermq?sslpassword=battery&host=/tmp")
    assert shown == "postgresql://dermq:***@db/dermq?host=%2Ftmp&sslpassword=hidden"
    assert shown_database("sqlite:////var/dermq.db") == "sqlite:////var/dermq.db"


@pytest.mark.parametrize(
    "url",
    ["postgresql://dermq:c%40rrect@db/dermq", "redis://:c@rrect@db:1/0", "postgresql://db/dermq?password=c%40rrect"],
)
def test_a_library_s_words_lose_the_password(url: str) -> None:
    said = without_password(f"connection with c@rrect, or {url}, was refused by db", url)
    assert "rrect" not in said
    assert "was refused by db" in said


def test_an_address_without_a_host_is_refused_without_its_password() -> None:
    with pytest.raises(DatabaseUrlError) as caught:
        open_database("postgresql://dermq:correct-horse")
    assert "correct" not in str(caught.value)
    refused = broken_broker_password("redis://:correct-horse")
    assert refused is not None
    assert "no readable host and port" in refused
    assert "correct" not in refused + shown_broker("redis://:correct-horse")
