"""Leakage between splits, other seeds, and runs that were trained without a source."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from trainer.config import RunConfig
from trainer.data.splits import leave_out_source, write_manifest
from trainer.metrics.leakage import check_leakage
from trainer.metrics.seeds import compare_seeds, require_same_recipe, sources_left_out
from trainer.report.document import Paragraph, Table
from trainer.report.participants import leakage
from trainer.run_folder import RECIPE
from worker.images.opencv import cv2
from worker.synthetic.lesion import draw_lesion


def images(folder: Path) -> pd.DataFrame:
    """Six lesions, one picture each; the last two are in the test split, one of another source."""
    rows = []
    for number in range(6):
        path = folder / f"ISIC_{number}.png"
        assert cv2.imwrite(str(path), draw_lesion(number, width=120, height=90))
        split = "test" if number >= 4 else ("validation" if number == 3 else "train")
        rows.append(
            {
                "image_id": path.stem,
                "lesion_id": f"HAM_{number}",
                "dx": "mel" if number % 2 else "nv",
                "split": split,
                "path": str(path),
                "dataset": "elsewhere" if number == 5 else "vienna",
            }
        )
    return pd.DataFrame(rows)


def test_a_clean_split_is_clean(tmp_path: Path) -> None:
    found = check_leakage(images(tmp_path), tmp_path / "cache")
    assert found["clean"]
    assert (found["lesions"], found["files"], found["near_duplicates"]) == (0, 0, 0)
    assert found["compared"] == {"test": 2, "others": 4}


def test_a_lesion_a_file_and_a_photograph_on_both_sides_are_found(tmp_path: Path) -> None:
    rows = images(tmp_path)
    rows.loc[5, "lesion_id"] = "HAM_0"
    Path(rows.loc[4, "path"]).write_bytes(Path(rows.loc[1, "path"]).read_bytes())
    brighter = cv2.convertScaleAbs(draw_lesion(2, width=120, height=90), alpha=1.05)
    assert cv2.imwrite(rows.loc[5, "path"], brighter)
    found = check_leakage(rows, tmp_path / "cache")
    assert not found["clean"]
    assert (found["lesions"], found["files"]) == (1, 1)
    assert found["near_duplicates"] == 2
    assert ["ISIC_2", "ISIC_5"] in found["pairs"]


def test_images_that_a_run_does_not_use_cannot_leak(tmp_path: Path) -> None:
    rows = images(tmp_path)
    Path(rows.loc[4, "path"]).write_bytes(Path(rows.loc[1, "path"]).read_bytes())
    rows.loc[1, "split"] = "unused"
    assert check_leakage(rows, tmp_path / "cache")["clean"]


def test_the_report_names_the_sides_that_there_are(tmp_path: Path) -> None:
    rows = images(tmp_path)
    without = rows.assign(split=rows["split"].replace("validation", "train"))
    for frame, told in ((rows, "4 of training and validation"), (without, "4 of training")):
        table, verdict = leakage(check_leakage(frame, tmp_path / "cache")).blocks
        assert isinstance(table, Table)
        assert isinstance(verdict, Paragraph)
        assert table.caption.endswith(told)
        assert verdict.text.endswith(f"found in {told.removeprefix('4 of ').replace(' and ', ' or ')}.")


def metrics(auroc: float) -> dict[str, Any]:
    return {
        "auroc": {"value": auroc},
        "auprc": {"value": 0.7},
        "brier": {"value": 0.07},
        "policies": {"youden": {"sensitivity": {"value": 0.9}, "specificity": {"value": auroc - 0.1}}},
    }


def run(folder: Path, *, seed: int, split: str = "s" * 64, found: dict[str, Any] | None = None) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"seed": seed}))
    (folder / "split.json").write_text(json.dumps({"sha256": split}))
    if found is not None:
        (folder / "metrics.json").write_text(json.dumps(found))
    return folder


def test_seeds_give_mean_and_range(tmp_path: Path) -> None:
    first = run(tmp_path / "a", seed=1)
    given = (("b", 2, 0.9), ("c", 3, 0.96))
    others = [run(tmp_path / name, seed=seed, found=metrics(auroc)) for name, seed, auroc in given]
    found = compare_seeds(first, metrics(0.93), others)
    assert [(each["run"], each["seed"]) for each in found["runs"]] == [("a", 1), ("b", 2), ("c", 3)]
    assert found["figures"]["auroc"] == {"mean": pytest.approx(0.93), "least": 0.9, "greatest": 0.96}
    assert found["figures"]["specificity at youden"]["least"] == pytest.approx(0.8)


def test_alone_a_run_is_one_seed(tmp_path: Path) -> None:
    assert len(compare_seeds(run(tmp_path / "a", seed=1), metrics(0.93), [])["runs"]) == 1


def test_a_seed_of_another_split_or_without_evaluation_is_refused(tmp_path: Path) -> None:
    first = run(tmp_path / "a", seed=1)
    with pytest.raises(ValueError, match="same test images"):
        compare_seeds(first, metrics(0.9), [run(tmp_path / "b", seed=2, split="t" * 64, found=metrics(0.9))])
    with pytest.raises(FileNotFoundError, match="dermq-train evaluate"):
        compare_seeds(first, metrics(0.9), [run(tmp_path / "c", seed=3)])


def test_the_same_seed_twice_and_another_recipe_are_refused(tmp_path: Path) -> None:
    first = run(tmp_path / "a", seed=1)
    with pytest.raises(ValueError, match="in: nothing"):
        compare_seeds(first, metrics(0.9), [run(tmp_path / "b", seed=1, found=metrics(0.9))])
    other = run(tmp_path / "c", seed=2, found=metrics(0.9))
    (other / "config.json").write_text(json.dumps({"seed": 2, "epochs": 7}))
    with pytest.raises(ValueError, match="in: epochs"):
        compare_seeds(first, metrics(0.9), [other])


def test_seeds_of_a_recipe_in_two_steps_differ_at_each_step_that_they_do_not_share(tmp_path: Path) -> None:
    def made(name: str, *, trunk: int, seed: int, epochs: int = 30) -> Path:
        folder = run(tmp_path / name, seed=seed, found=metrics(0.9))
        config = {"seed": seed, "weights": f"trunk-{trunk}", "weights_sha256": f"of-{trunk}"}
        (folder / "config.json").write_text(json.dumps(config))
        before = asdict(RunConfig(seed=trunk, epochs=epochs))
        earlier = {"run": f"trunk-{trunk}", "config": before, "weights_from": "x", "continues_from": None}
        (folder / "run.json").write_text(json.dumps({"recipe": RECIPE, "continues_from": earlier}))
        return folder

    main = made("main", trunk=41, seed=43)
    whole, branch = made("whole", trunk=51, seed=53), made("branch", trunk=41, seed=44)
    assert not compare_seeds(main, metrics(0.9), [whole])["same_start"]
    assert compare_seeds(main, metrics(0.9), [branch])["same_start"]
    with pytest.raises(ValueError, match="in: nothing at the step with seed 43"):
        compare_seeds(main, metrics(0.9), [made("same-end", trunk=61, seed=43)])
    with pytest.raises(ValueError, match="in: epochs"):
        compare_seeds(main, metrics(0.9), [made("shorter", trunk=71, seed=73, epochs=20)])
    again = made("again", trunk=41, seed=45)
    (again / "config.json").write_text(json.dumps({"seed": 45, "weights": "again", "weights_sha256": "of-another-41"}))
    with pytest.raises(ValueError, match="in: nothing at the step with seed 41"):
        compare_seeds(main, metrics(0.9), [again])


def test_a_run_without_a_source_must_be_of_the_same_recipe(tmp_path: Path) -> None:
    main, other = run(tmp_path / "a", seed=1), run(tmp_path / "b", seed=2)
    (other / "config.json").write_text(json.dumps({"seed": 2, "without_source": "rosendahl"}))
    require_same_recipe(main, other)
    (other / "run.json").write_text(json.dumps({"recipe": 99}))
    with pytest.raises(ValueError, match="in: the version of the code"):
        require_same_recipe(main, other)
    (other / "run.json").unlink()
    (other / "config.json").write_text(json.dumps({"seed": 2, "epochs": 7}))
    with pytest.raises(ValueError, match="in: epochs"):
        require_same_recipe(main, other)


def test_of_teachers_the_number_is_compared(tmp_path: Path) -> None:
    taught = [run(tmp_path / name, seed=1) for name in ("main", "without", "fewer")]
    for folder, teachers in zip(taught, (["a (1)", "b (2)"], ["a (3)", "b (4)"], ["a (1)"]), strict=True):
        (folder / "config.json").write_text(json.dumps({"classes": "seven", "teachers": teachers}))
    require_same_recipe(taught[0], taught[1])
    with pytest.raises(ValueError, match="in: teachers"):
        require_same_recipe(taught[0], taught[2])


def test_runs_in_steps_are_compared_step_by_step(tmp_path: Path) -> None:
    """A run that goes on from another has other weights than its counterpart without a source, and the same recipe."""

    def made(name: str, *, digest: str, earlier: dict[str, Any], members: int = 0, source: str = "") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        config = {"seed": 1, "weights": "trunk", "weights_sha256": digest, "without_source": source}
        (folder / "config.json").write_text(json.dumps(config))
        before = asdict(RunConfig(**earlier))
        described = {
            "recipe": RECIPE,
            "continues_from": {"run": "trunk", "config": before, "weights_from": "x", "continues_from": None},
            "averaged": [{}] * members,
        }
        (folder / "run.json").write_text(json.dumps(described))
        return folder

    main = made("main", digest="1", earlier={"size": 192})
    require_same_recipe(main, made("without", digest="2", earlier={"size": 192, "without_source": "a"}, source="a"))
    with pytest.raises(ValueError, match="in: size"):
        require_same_recipe(main, made("larger", digest="3", earlier={"size": 224}))
    with pytest.raises(ValueError, match="how many runs were averaged"):
        require_same_recipe(main, made("average", digest="4", earlier={"size": 192}, members=3))
    alone = run(tmp_path / "alone", seed=1)
    (alone / "run.json").write_text(json.dumps({"recipe": RECIPE}))
    with pytest.raises(ValueError, match="the runs that it goes on from"):
        require_same_recipe(main, alone)


def test_the_source_that_a_run_never_saw_is_told_from_its_split(tmp_path: Path) -> None:
    rows = images(tmp_path)
    without = run(tmp_path / "without", seed=1)
    write_manifest(rows[rows["dataset"] == "vienna"], without, seed=1)
    assert sources_left_out(rows, without) == ["elsewhere"]
    unused = run(tmp_path / "unused", seed=1)
    both = rows.assign(dataset=["elsewhere", *rows["dataset"][1:]])
    split = leave_out_source(both["split"], both["dataset"], "vienna")
    write_manifest(both.assign(split=split), unused, seed=1)
    assert sources_left_out(both, unused) == ["vienna"]
    seen = run(tmp_path / "seen", seed=1)
    write_manifest(rows.assign(split=["train"] * 4 + ["test", "train"]), seen, seed=1)
    with pytest.raises(ValueError, match="every source"):
        sources_left_out(rows, seen)
