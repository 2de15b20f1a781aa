"""docs/operations.md against the fault tests, the code and the commands it names."""

import ast
import re
from pathlib import Path

import click
import pytest
from pydantic import BaseModel

import worker.cli
from worker.monitor.health import CheckReport, CheckResult
from worker.monitor.job_status import JobReport

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
#: A row of the table of faults: number, fault, what is seen, what happens, what to do.
ROWS = {
    int(row[0]): row[1:] for row in re.findall(r"^\| (\d+) \| (.+?) \| (.+?) \| (.+?) \| (.+?) \|$", PAGE, re.MULTILINE)
}
SOURCE = "\n".join(path.read_text() for package in ("worker", "db") for path in (ROOT / package).rglob("*.py"))
#: What others say in the log, not our code: Celery, Redis and SQLite.
NOT_OURS = {"consumer: Cannot connect", "OOM", "read only replica", "database is locked", "locking protocol"}


def faults_with_tests() -> dict[int, list[str]]:
    """Test functions by the number of their fault test, read from the files' syntax: nothing is imported."""
    found: dict[int, list[str]] = {}
    for path in (ROOT / "tests" / "acceptance" / "faults").glob("test_*.py"):
        for node in ast.parse(path.read_text()).body:
            for decorator in getattr(node, "decorator_list", ()):
                if ast.unparse(decorator).startswith("pytest.mark.fault("):
                    found.setdefault(decorator.args[0].value, []).append(node.name)
    return found


def test_the_table_has_every_fault_that_is_tested() -> None:
    assert sorted(ROWS) == sorted(faults_with_tests()) == list(range(1, 28))


@pytest.mark.parametrize("model", [JobReport, CheckReport, CheckResult])
def test_every_key_of_the_json_is_documented(model: type[BaseModel]) -> None:
    for name in model.model_fields:
        assert f"`{name}`" in PAGE, f"docs/operations.md does not explain the key {name}"


@pytest.mark.parametrize("number", sorted(ROWS))
def test_what_the_operator_sees_is_what_the_code_says(number: int) -> None:
    seen = [word for word in re.findall(r"`([^`]+)`", ROWS[number][1]) if not word.startswith("dermq ")]
    for word in seen:
        assert word in NOT_OURS or word in SOURCE, f"fault test {number}: nothing in db/ or worker/ says {word!r}"


def test_the_commands_of_the_page_exist() -> None:
    named = {tuple(found.split()) for found in re.findall(r"`dermq ((?:[a-z]+ ?)+)", PAGE)}
    assert len(named) > 10
    for words in named:
        command: click.Command = worker.cli.main
        for word in words:
            if not isinstance(command, click.Group):
                break
            assert word in command.commands, f"`dermq {' '.join(words)}` is no command"
            command = command.commands[word]
