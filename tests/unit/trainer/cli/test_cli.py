"""``dermq-train``: help, errors for the person who trains, and a quick start."""

import math
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner

from tests.unit.trainer.synthetic_run import write_description
from trainer.cli import main
from trainer.cli.printing import _AFTER_FOLDS, print_trained
from trainer.config import RunConfig
from trainer.data.run_images import _spread
from trainer.errors import InputError


def test_help_shows_the_commands_and_how_to_use_them() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    for expected in ("fit", "evaluate", "export", "dermq-train fit runs/first", "DERMQ_HAM10000"):
        assert expected in result.output


def test_without_the_packages_for_training_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, dataset: Path) -> None:
    """`make demo` sets up an environment in which `dermq-train` is there and TensorFlow is not."""
    monkeypatch.delitem(sys.modules, "trainer.training.fit", raising=False)
    monkeypatch.setitem(sys.modules, "keras", None)
    result = CliRunner().invoke(main, ["fit", "run", "--dataset", str(dataset)])
    assert result.exit_code == 2
    assert "the package keras is not installed" in result.stderr
    assert "make dev-environment" in result.stderr


@pytest.mark.parametrize("command", ["fit", "robustness", "evaluate", "export"])
def test_each_commands_help_names_where_the_data_set_comes_from(command: str) -> None:
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    assert "--dataset" in result.output
    assert "DERMQ_HAM10000" in result.output


def test_every_setting_of_a_run_is_an_option_with_its_default() -> None:
    options = {option.name: option for option in main.commands["fit"].params if isinstance(option, click.Option)}
    for name, default in vars(RunConfig()).items():
        assert options[name].opts == [f"--{name.replace('_', '-')}"]
        assert options[name].default == default


@pytest.mark.parametrize("command", ["fit", "evaluate", "export"])
def test_the_examples_in_the_help_can_be_given(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DERMQ_HAM10000", "/data/HAM10000")
    lines = [shlex.split(line) for line in (main.help or "").splitlines() if line.strip().startswith("dermq-train")]
    (arguments,) = [line[2:] for line in lines if line[1] == command]
    main.commands[command].make_context(command, arguments)


@pytest.fixture
def without_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DERMQ_HAM10000", raising=False)


@pytest.mark.usefixtures("without_dataset")
def test_without_a_data_set_the_option_and_the_variable_are_named() -> None:
    result = CliRunner().invoke(main, ["fit", "run"])
    assert result.exit_code == 2
    assert "--dataset" in result.stderr
    assert "DERMQ_HAM10000" in result.stderr


def test_a_data_set_that_is_not_there_ends_with_its_name_and_no_traceback(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere"
    result = CliRunner().invoke(
        main, ["fit", str(tmp_path / "run"), "--dataset", str(missing), "--cache", str(tmp_path / "cache")]
    )
    assert result.exit_code == 2
    assert result.stderr.startswith("dermq-train: ")
    assert str(missing) in result.stderr
    assert "HAM10000_metadata.csv" in result.stderr
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_after_a_mistyped_data_set_the_run_folder_is_free(tmp_path: Path) -> None:
    arguments = ["fit", str(tmp_path / "run"), "--dataset", str(tmp_path / "nowhere")]
    for _ in range(2):
        result = CliRunner().invoke(main, arguments)
        assert "holds a" not in result.stderr


def test_a_finished_run_is_not_overwritten(tmp_path: Path) -> None:
    RunConfig(epochs=3).write(tmp_path)
    (tmp_path / "validation.csv").write_text("label,probability\n")
    result = CliRunner().invoke(main, ["fit", str(tmp_path), "--dataset", str(tmp_path)])
    assert result.exit_code == 2
    assert f"The run folder {tmp_path} holds a finished run" in result.stderr
    assert RunConfig.read(tmp_path) == RunConfig(epochs=3)


def test_a_run_with_other_settings_is_not_gone_on_with(tmp_path: Path, dataset: Path) -> None:
    RunConfig(epochs=3, backbone="resnet50").write(tmp_path)
    write_description(tmp_path)
    result = CliRunner().invoke(main, ["fit", str(tmp_path), "--dataset", str(dataset), "--epochs", "4"])
    assert result.exit_code == 2
    assert "--epochs: the run has 3, asked for is 4" in result.stderr
    assert (
        "It has no complete epoch. Name another folder or, if nothing trains in it, remove this one." in result.stderr
    )
    assert "--backbone: the run has 'resnet50', asked for is 'efficientnet-lite0'" in result.stderr
    assert "Traceback" not in result.output


def test_a_preset_is_overridden_by_what_is_given(
    tmp_path: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import trainer.training.fit

    seen: list[RunConfig] = []
    monkeypatch.setattr(trainer.training.fit, "fit", lambda dataset, run, cache, config: seen.append(config) or 0.9)
    # 30 is what the default of --epochs is: given by name it counts all the same.
    arguments = ["fit", str(tmp_path / "run"), "--dataset", str(dataset), "--preset", "reference", "--epochs", "30"]
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0
    (config,) = seen
    assert (config.preset, config.backbone, config.unfreeze_last, config.epochs) == ("reference", "resnet50", 30, 30)


def test_every_option_of_a_training_is_described() -> None:
    for option in main.commands["fit"].params:
        if isinstance(option, click.Option) and option.name != "cache":
            assert option.help, option.name


def test_a_weights_file_that_is_not_there_ends_with_a_sentence(tmp_path: Path, dataset: Path) -> None:
    arguments = ["fit", str(tmp_path / "run"), "--dataset", str(dataset), "--weights", str(tmp_path / "none.h5")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert "does not exist" in result.stderr
    assert "Traceback" not in result.output


def test_importing_the_cli_does_not_import_tensorflow() -> None:
    """Help would take ten seconds otherwise."""
    script = (
        "import sys; from click.testing import CliRunner; from trainer.cli import main; "
        "assert CliRunner().invoke(main, ['fit', '--help']).exit_code == 0; "
        "print(sorted({'tensorflow', 'keras', 'sklearn', 'openvino'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("run", "folder", "epochs", "said"),
    [
        ("new", ".", "-3", "--epochs -3 is wrong"),
        ("finished", ".", "3", "holds a finished run"),
        ("new", "HAM10000_images_part_1", "3", "is not the HAM10000 folder"),
    ],
)
def test_wrong_settings_a_taken_folder_and_no_data_set_are_refused_before_tensorflow_is_loaded(
    tmp_path: Path, dataset: Path, run: str, folder: str, epochs: str, said: str
) -> None:
    finished = tmp_path / "finished"
    finished.mkdir()
    (finished / "validation.csv").touch()
    script = (
        "import sys; from click.testing import CliRunner; from trainer.cli import main; "
        f"arguments = ['fit', {str(tmp_path / run)!r}, '--dataset', {str(dataset / folder)!r}]; "
        f"arguments += ['--preset', 'reference', '--epochs', {epochs!r}]; "
        "result = CliRunner().invoke(main, arguments); assert result.exit_code == 2; "
        f"assert {said!r} in result.stderr, result.output; print(sorted({{'tensorflow', 'keras'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("settings", "auc", "said"),
    [
        ({}, 0.9, "Validation AUROC 0.9000 of the best epoch. Next: dermq-train evaluate runs/a\n"),
        ({}, 0.33, "Validation AUROC 0.3300, no better than chance. Train longer, or on more lesions.\n"),
        ({"fold": "2/4", "checkpoint": "last"}, 0.33, f"AUROC 0.3300 on the held-out fold 2/4. {_AFTER_FOLDS}\n"),
        (
            {"fold": "all", "checkpoint": "last"},
            math.nan,
            "Trained without validation images. Next: dermq-train crossfit ",
        ),
    ],
)
def test_a_training_ends_with_what_to_do_next(
    settings: dict[str, Any], auc: float, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_trained(Path("runs/a"), RunConfig(**settings), auc)
    assert capsys.readouterr().out.startswith(said)


@pytest.mark.parametrize(
    ("command", "module", "said"),
    [
        ("fit", "trainer.training.fit.fit", " The same command continues after the last complete epoch."),
        ("robustness", "trainer.evaluation.robustness_of_run.robustness_on_validation", ""),
    ],
)
def test_an_interrupted_command_says_so(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, module: str, said: str
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, interrupted)
    result = CliRunner().invoke(main, [command, str(tmp_path / "run"), "--dataset", str(dataset)])
    assert result.exit_code == 130
    assert result.stderr == f"dermq-train: interrupted.{said}\n"


def test_a_bug_keeps_its_traceback_in_a_file(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ValueError of NumPy after hours of training ended in one line."""

    def broken(*_: object) -> None:
        raise ValueError("operands could not be broadcast together")

    monkeypatch.setattr("trainer.training.fit.fit", broken)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    result = CliRunner().invoke(main, ["fit", str(tmp_path / "run"), "--dataset", str(dataset)])
    assert result.exit_code == 1
    assert "unexpected error, ValueError: operands could not be broadcast together" in result.stderr
    (file,) = tmp_path.glob("dermq-train-error-*.txt")
    assert str(file) in result.stderr
    assert 'raise ValueError("operands' in file.read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stress", "run"], "The command stress is now called robustness."),
        (["average", "run", "a", "b"], "The command average is gone"),
        (["fit", "run", "--gamma", "1"], "The option --gamma is now called --focal-gamma."),
        (["fit", "run", "--draws", "100"], "The option --draws is now called --samples-per-epoch."),
        (["fit", "run", "--proven-nevi", "0.5"], "The option --proven-nevi is now called --histology-nevi-share."),
        (["fit", "run", "--keep", "last"], "The option --keep is now called --checkpoint."),
        (["evaluate", "run", "--also", "other"], "The option --also is now called --left-out-run."),
        (["evaluate", "run", "--seeds", "other"], "The option --seeds is now called --seed-run."),
        (["evaluate", "run", "--quick"], "The option --quick is now called --skip-robustness."),
    ],
)
def test_renamed_commands_and_options_are_refused_with_the_new_name(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_no_summary_in_the_help_is_cut_off() -> None:
    result = CliRunner().invoke(main, ["-h"])
    assert result.exit_code == 0
    assert "..." not in result.output.partition("Commands:")[2]


def test_a_file_is_no_run_folder(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "run").touch()
    result = CliRunner().invoke(main, ["fit", str(tmp_path / "run"), "--dataset", str(dataset)])
    assert result.exit_code == 2
    assert "is a file. Name a new folder." in result.stderr


def test_a_folder_of_other_things_is_left_alone(dataset: Path, tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("mine")
    result = CliRunner().invoke(main, ["fit", str(tmp_path), "--dataset", str(dataset)])
    assert result.exit_code == 2
    assert "holds files of no run (note.txt). Name a new or an empty folder" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_importing_the_cli_quiets_tensorflow_unless_told_otherwise() -> None:
    script = "import os, trainer.cli; print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    for given, expected in ((None, "2" if Path("/dev/nvidiactl").exists() else "3"), ("0", "0")):
        environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
        if given is not None:
            environment["TF_CPP_MIN_LOG_LEVEL"] = given
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        assert done.stdout.strip() == expected


def test_a_limit_below_nought_is_refused() -> None:
    with pytest.raises(InputError, match=r"--limit -3 is wrong: input should be greater than or equal to 0"):
        RunConfig.make({"limit": -3})


@pytest.mark.parametrize(("count", "limit"), [(3_999, 2_000), (511, 256), (5, 10), (7, 7)])
def test_some_images_of_a_side_are_spread_over_all_of_it(count: int, limit: int) -> None:
    chosen = _spread(count, limit)
    assert (chosen[0], chosen[-1], len(chosen)) == (0, count - 1, min(count, limit))
    assert len(set(chosen.tolist())) == len(chosen)
    assert np.ptp(np.diff(chosen)) <= 1
