"""Leakage between splits, other seeds, and runs that were trained without a source."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.unit.trainer.synthetic_run import write_description
from trainer.config import RunConfig
from trainer.data.splits import leave_out_source, write_manifest
from trainer.errors import InputError, MissingError
from trainer.metrics.leakage import check_leakage
from trainer.metrics.seeds import check_seeds, compare_seeds, require_same_recipe, sources_left_out
from trainer.report.document import Paragraph, Table
from trainer.report.participants import leakage
from worker.images.opencv import cv2
from worker.inference.metrics import BundleMetrics
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
                "sha256": str(number) * 64,
            }
        )
    return pd.DataFrame(rows)


def test_a_clean_split_is_clean(tmp_path: Path) -> None:
    found = check_leakage(images(tmp_path), tmp_path / "cache")
    assert found.clean
    assert (found.lesions, found.files, found.near_duplicates) == (0, 0, 0)
    assert (found.compared.test, found.compared.others) == (2, 4)


def test_a_lesion_a_file_and_a_photograph_on_both_sides_are_found(tmp_path: Path) -> None:
    rows = images(tmp_path)
    rows.loc[5, "lesion_id"] = "HAM_0"
    Path(rows.loc[4, "path"]).write_bytes(Path(rows.loc[1, "path"]).read_bytes())
    brighter = cv2.convertScaleAbs(draw_lesion(2, width=120, height=90), alpha=1.05)
    assert cv2.imwrite(rows.loc[5, "path"], brighter)
    found = check_leakage(rows, tmp_path / "cache")
    assert not found.clean
    assert (found.lesions, found.files) == (1, 1)
    assert found.near_duplicates == 2
    assert ("ISIC_2", "ISIC_5") in found.pairs


def test_images_that_a_run_does_not_use_cannot_leak(tmp_path: Path) -> None:
    rows = images(tmp_path)
    Path(rows.loc[4, "path"]).write_bytes(Path(rows.loc[1, "path"]).read_bytes())
    rows.loc[1, "split"] = "unused"
    assert check_leakage(rows, tmp_path / "cache").clean


def test_the_report_names_the_sides_that_there_are(tmp_path: Path) -> None:
    rows = images(tmp_path)
    without = rows.assign(split=rows["split"].replace("validation", "train"))
    for frame, told in ((rows, "4 of training and validation"), (without, "4 of training")):
        table, verdict = leakage(check_leakage(frame, tmp_path / "cache")).blocks
        assert isinstance(table, Table)
        assert isinstance(verdict, Paragraph)
        assert table.caption.endswith(told)
        assert verdict.text.endswith(f"found in {told.removeprefix('4 of ').replace(' and ', ' or ')}.")


def metrics(auroc: float) -> BundleMetrics:
    policy = {"threshold": 0.4, "sensitivity": {"value": 0.9}, "specificity": {"value": auroc - 0.1}}
    counts = {"melanoma": 10, "nevus": 10}
    return BundleMetrics.model_validate(
        {
            "images": counts,
            "lesions": counts,
            "split": "test",
            "auroc": {"value": auroc},
            "auprc": {"value": 0.7},
            "brier": {"value": 0.07},
            "policies": {"youden": {**policy, "missed_melanoma_images": 1}},
        }
    )


def run(folder: Path, *, split: str = "s" * 64, found: BundleMetrics | None = None, **settings: Any) -> Path:
    folder.mkdir()
    RunConfig.make(settings).write(folder)
    write_description(folder)
    (folder / "split.json").write_text(json.dumps({"sha256": split}))
    if found is not None:
        (folder / "metrics.json").write_text(found.model_dump_json())
    return folder


def trunk(**settings: Any) -> dict[str, Any]:
    """What a run records about the one that it continues from."""
    return {"run": "trunk", "config": RunConfig.make(settings), "weights_from": "x"}


def test_seeds_give_mean_and_range(tmp_path: Path) -> None:
    first = run(tmp_path / "a", seed=1)
    given = (("b", 2, 0.9), ("c", 3, 0.96))
    others = [run(tmp_path / name, seed=seed, found=metrics(auroc)) for name, seed, auroc in given]
    check_seeds(first, others)
    found = compare_seeds(first, metrics(0.93), others)
    assert [(each.run, each.seed) for each in found.runs] == [("a", 1), ("b", 2), ("c", 3)]
    area = found.figures["auroc"]
    assert (area.mean, area.least, area.greatest) == (pytest.approx(0.93), 0.9, 0.96)
    assert found.figures["specificity at youden"].least == pytest.approx(0.8)


def test_alone_a_run_is_one_seed(tmp_path: Path) -> None:
    assert len(compare_seeds(run(tmp_path / "a", seed=1), metrics(0.93), []).runs) == 1


def test_a_seed_of_another_split_or_without_evaluation_is_refused(tmp_path: Path) -> None:
    first = run(tmp_path / "a", seed=1)
    with pytest.raises(InputError, match="same test images"):
        check_seeds(first, [run(tmp_path / "b", seed=2, split="t" * 64, found=metrics(0.9))])
    with pytest.raises(MissingError, match="dermq-train evaluate"):
        check_seeds(first, [run(tmp_path / "c", seed=3)])


def test_the_same_seed_twice_and_another_recipe_are_refused(tmp_path: Path) -> None:
    first = run(tmp_path / "a", seed=1)
    with pytest.raises(InputError, match="in nothing at the step with seed 1"):
        check_seeds(first, [run(tmp_path / "b", seed=1, found=metrics(0.9))])
    with pytest.raises(InputError, match="in epochs"):
        check_seeds(first, [run(tmp_path / "c", seed=2, epochs=7, found=metrics(0.9))])


def test_seeds_of_a_recipe_in_two_steps_differ_at_each_step_that_they_do_not_share(tmp_path: Path) -> None:
    def made(name: str, *, earlier: int, seed: int, epochs: int = 30, weights: str = "") -> Path:
        weights = weights or f"of-{earlier}"
        folder = run(tmp_path / name, seed=seed, weights="trunk", weights_sha256=weights, found=metrics(0.9))
        write_description(folder, continues_from=trunk(seed=earlier, epochs=epochs))
        return folder

    main = made("main", earlier=41, seed=43)
    whole, branch = made("whole", earlier=51, seed=53), made("branch", earlier=41, seed=44)
    check_seeds(main, [whole, branch])
    assert not compare_seeds(main, metrics(0.9), [whole]).same_start
    assert compare_seeds(main, metrics(0.9), [branch]).same_start
    with pytest.raises(InputError, match="in nothing at the step with seed 43"):
        check_seeds(main, [made("same-end", earlier=61, seed=43)])
    with pytest.raises(InputError, match="in epochs"):
        check_seeds(main, [made("shorter", earlier=71, seed=73, epochs=20)])
    with pytest.raises(InputError, match="in nothing at the step with seed 41"):
        check_seeds(main, [made("again", earlier=41, seed=45, weights="of-another-41")])


def test_a_run_without_a_source_must_be_of_the_same_recipe(tmp_path: Path) -> None:
    main = run(tmp_path / "a", seed=1)
    other = run(tmp_path / "b", seed=2, without_source="rosendahl")
    require_same_recipe(main, other)
    write_description(other, recipe=99)
    with pytest.raises(InputError, match="in the version of the code"):
        require_same_recipe(main, other)
    with pytest.raises(InputError, match="in epochs"):
        require_same_recipe(main, run(tmp_path / "c", seed=2, epochs=7))


def test_only_the_number_of_teachers_is_compared(tmp_path: Path) -> None:
    main, without, fewer = (
        run(tmp_path / name, classes="seven", teachers=teachers)
        for name, teachers in (
            ("main", ("a (1)", "b (2)")),
            ("without", ("a (3)", "b (4)")),
            ("fewer", ("a (1)",)),
        )
    )
    require_same_recipe(main, without)
    with pytest.raises(InputError, match="in teachers"):
        require_same_recipe(main, fewer)


def test_runs_in_steps_are_compared_step_by_step(tmp_path: Path) -> None:
    """A run that continues from another has other weights than its counterpart without a source, but the same
    recipe.
    """

    def made(name: str, *, digest: str, earlier: dict[str, Any], source: str = "") -> Path:
        folder = run(tmp_path / name, weights="trunk", weights_sha256=digest, without_source=source)
        write_description(folder, continues_from=trunk(**earlier))
        return folder

    main = made("main", digest="1", earlier={"size": 192})
    require_same_recipe(main, made("without", digest="2", earlier={"size": 192, "without_source": "a"}, source="a"))
    with pytest.raises(InputError, match="in size"):
        require_same_recipe(main, made("larger", digest="3", earlier={"size": 224}))
    with pytest.raises(InputError, match="the runs that it continues from"):
        require_same_recipe(main, run(tmp_path / "alone"))


def test_the_source_that_a_run_never_saw_is_derived_from_its_split(tmp_path: Path) -> None:
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
