"""docs/settings.md and the README against the code, and what an operator reads after a wrong setting."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

import trainer.cli
import worker.cli
from db.status import FailureCode, UngradableReason
from worker.errors import SettingsError
from worker.output.rows import CANCELLED
from worker.settings import Settings, load_settings

ROOT = Path(__file__).parents[3]
SETTINGS_PAGE = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
WORKLIST_PAGE = (ROOT / "docs" / "worklist.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
#: A row of the table of settings: variable, default, meaning.
ROW = re.compile(r"^\| (`DERMQ_\w+`(?:, `DERMQ_\w+`)*) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def rows(page: str) -> Iterator[tuple[str, str, str]]:
    """Variable, default and meaning; a row may name several variables."""
    for variables, default, meaning in ROW.findall(page):
        yield from ((variable, default, meaning) for variable in re.findall(r"\w+", variables))


DOCUMENTED = {variable: (default, meaning) for variable, default, meaning in rows(SETTINGS_PAGE)}


def command_names(program: str, group: click.Group) -> Iterator[str]:
    """Every command as it is typed, those inside groups included."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from command_names(f"{program} {name}", command)
        else:
            yield f"{program} {name}"


COMMANDS = [*command_names("dermq", worker.cli.main), *command_names("dermq-train", trainer.cli.main)]


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_is_documented(name: str) -> None:
    variable = f"DERMQ_{name.upper()}"
    assert variable in DOCUMENTED, f"{variable} has no row in docs/settings.md"


@pytest.mark.parametrize(
    # A default that is worked out, or none at all, is described in words.
    "name",
    [
        name
        for name, field in Settings.model_fields.items()
        if field.default_factory is None and field.default not in (None, "")
    ],
)
def test_the_documented_default_is_the_real_one(name: str) -> None:
    documented, _ = DOCUMENTED[f"DERMQ_{name.upper()}"]
    assert documented == f"`{Settings.model_fields[name].default}`"


def test_every_reason_of_an_export_is_documented_and_no_other() -> None:
    (table,) = re.findall(r"^\| `reason_code` \| meaning \|\n.*\n((?:\|.*\n)+)", WORKLIST_PAGE, re.MULTILINE)
    documented = dict(re.findall(r"^\| `(\w+)` \| (\w+):", table, re.MULTILINE))
    assert documented == {
        **dict.fromkeys(UngradableReason, "ungradable"),
        **dict.fromkeys(FailureCode, "failed"),
        CANCELLED: "waiting",
    }


def test_no_setting_is_documented_that_does_not_exist() -> None:
    real = {f"DERMQ_{name.upper()}" for name in Settings.model_fields}
    table = SETTINGS_PAGE.split("\n## ")[1]
    assert table.startswith("Settings of `dermq`")
    assert {variable for variable, _, _ in rows(table)} == real


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_is_documented(command: str) -> None:
    tables = [line for line in SETTINGS_PAGE.splitlines() if line.startswith("| `")]
    named = re.compile(rf"^\| .*`{re.escape(command)}`.* \|.*\|$")
    assert any(named.match(line) for line in tables), f"{command} has no row in docs/settings.md"


def test_help_of_the_trainer_does_not_wait_for_tensorflow() -> None:
    code = "import sys, trainer.cli; print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


@pytest.fixture
def fresh_settings(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """The environment without settings, and no memory of what was read before or is read now."""
    for name in Settings.model_fields:
        monkeypatch.delenv(f"DERMQ_{name.upper()}", raising=False)
    load_settings.cache_clear()
    yield monkeypatch
    load_settings.cache_clear()


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("DERMQ_CHUNK_SIZE", "0"),
        ("DERMQ_CHUNK_SIZE", ""),
        ("DERMQ_CONCURRENCY", "many"),
        ("DERMQ_ENGINE", "abacus"),
        ("DERMQ_FLOWER_PORT", "65536"),
        ("DERMQ_LEASE_SECONDS", "nan"),
        ("DERMQ_LOG_FORMAT", "poem"),
        ("DERMQ_MAX_FILE_BYTES", str(2**31)),
        # tornado would listen on every interface, and the database would lie wherever somebody stands.
        ("DERMQ_FLOWER_ADDRESS", ""),
        ("DERMQ_HOME", ""),
        ("DERMQ_BUNDLE", ""),
        ("DERMQ_FLOWER_PASSWORD", "pässwort"),
    ],
)
def test_a_wrong_setting_is_named(fresh_settings: pytest.MonkeyPatch, variable: str, wrong: str) -> None:
    fresh_settings.setenv(variable, wrong)
    with pytest.raises(SettingsError, match=rf"{variable}: .*docs/settings\.md"):
        load_settings()


def test_an_empty_setting_is_called_empty(fresh_settings: pytest.MonkeyPatch) -> None:
    fresh_settings.setenv("DERMQ_CONCURRENCY", "")
    with pytest.raises(SettingsError, match="DERMQ_CONCURRENCY: it is empty"):
        load_settings()


@pytest.mark.parametrize(
    ("misspelt", "meant"),
    [
        ("DERMQ_CONCURENCY", "DERMQ_CONCURRENCY"),
        ("DERMQ_DATABSE_URL", "DERMQ_DATABASE_URL"),
        ("DERMQ_BATCHSIZE", "DERMQ_BATCH_SIZE"),
    ],
)
def test_a_misspelt_setting_is_not_ignored(fresh_settings: pytest.MonkeyPatch, misspelt: str, meant: str) -> None:
    fresh_settings.setenv(misspelt, "correct-horse")
    with pytest.raises(SettingsError, match=f"{misspelt} is no setting; the nearest one is {meant}") as caught:
        load_settings()
    assert "correct-horse" not in str(caught.value)


@pytest.mark.parametrize(
    "variable",
    sorted(
        set(re.findall(r"`(DERMQ_\w+)`", SETTINGS_PAGE)) - {f"DERMQ_{name.upper()}" for name in Settings.model_fields}
    ),
)
def test_no_other_variable_of_ours_is_taken_for_a_misspelling(
    fresh_settings: pytest.MonkeyPatch, variable: str
) -> None:
    fresh_settings.setenv(variable, "something")
    load_settings()


def test_every_wrong_setting_is_named_and_no_secret_repeated(fresh_settings: pytest.MonkeyPatch) -> None:
    secret = "correct-horse"
    fresh_settings.setenv("DERMQ_DATABASE_URL", f"postgresql://dermq:{secret}@localhost/dermq")
    fresh_settings.setenv("DERMQ_BROKER_URL", f"redis://:{secret}@localhost/0")
    fresh_settings.setenv("DERMQ_FLOWER_PASSWORD", secret)
    # As when two values were swapped by mistake.
    fresh_settings.setenv("DERMQ_CONCURRENCY", secret)
    fresh_settings.setenv("DERMQ_ENGINE", secret)
    with pytest.raises(SettingsError) as caught:
        load_settings()
    assert "DERMQ_CONCURRENCY" in str(caught.value)
    assert "DERMQ_ENGINE" in str(caught.value)
    assert secret not in str(caught.value)


def test_settings_that_were_read_do_not_show_secrets(fresh_settings: pytest.MonkeyPatch) -> None:
    fresh_settings.setenv("DERMQ_BROKER_URL", "redis://:correct-horse@localhost/0")
    fresh_settings.setenv("DERMQ_FLOWER_PASSWORD", "correct-horse")
    settings = load_settings()
    assert settings.resolved_broker_url() == "redis://:correct-horse@localhost/0"
    assert "correct-horse" not in repr(settings)
    assert "correct-horse" not in settings.model_dump_json()


@pytest.mark.parametrize(
    ("old", "new"),
    [("DERMQ_HINT_SECONDS", "DERMQ_HINT_TIMEOUT"), ("DERMQ_SWEEP_SECONDS", "DERMQ_SWEEP_INTERVAL")],
)
def test_a_renamed_setting_is_refused_with_its_new_name(fresh_settings: pytest.MonkeyPatch, old: str, new: str) -> None:
    fresh_settings.setenv(old, "5")
    with pytest.raises(SettingsError, match=f"{old} is now called {new}"):
        load_settings()
