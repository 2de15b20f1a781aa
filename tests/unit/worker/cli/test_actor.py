"""Who runs a command, for the audit log: the account, and a name where all use one account."""

import os
from collections.abc import Iterator

import pytest
from click.testing import CliRunner

from worker.cli import main
from worker.cli.session import current_actor
from worker.errors import SettingsError
from worker.settings import load_settings


@pytest.fixture(autouse=True)
def nobody_named(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("DERMQ_ACTOR", "")
    monkeypatch.delenv("DERMQ_ACTOR")
    load_settings.cache_clear()
    yield
    load_settings.cache_clear()


def test_the_account_stays_beside_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    account = current_actor()
    assert "@" in account
    monkeypatch.setenv("DERMQ_ACTOR", " Jane Doe ")
    load_settings.cache_clear()
    assert current_actor() == f"Jane Doe ({account})"


@pytest.mark.parametrize("name", ["  ", "two\nlines", "\x1b[2Jx", "x" * 101])
def test_a_name_that_cannot_be_printed_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("DERMQ_ACTOR", name)
    load_settings.cache_clear()
    with pytest.raises(SettingsError, match="DERMQ_ACTOR"):
        current_actor()


def test_the_option_names_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("worker.monitor.health.run_checks", lambda settings: seen.append(current_actor()) or [])
    CliRunner().invoke(main, ["--as", "Dr. Müller", "check"], catch_exceptions=False)
    assert seen[0].startswith("Dr. Müller (")
    assert os.environ["DERMQ_ACTOR"] == "Dr. Müller"
    load_settings.cache_clear()
    refused = CliRunner().invoke(main, ["--as", "a\x07b", "check"])
    assert refused.exit_code == 2
    assert "DERMQ_ACTOR" in refused.output
