"""Folds that are clinics: each predicted by a network that has not seen it, all weighed the same."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from tests.unit.trainer.evaluation.test_crossfit import CONFIG, small_networks
from tests.unit.trainer.synthetic_run import changed
from trainer.data.readers import read_datasets
from trainer.data.splits import TEST, TRAIN, UNUSED, VALIDATION, read_manifest
from trainer.errors import InputError, RunError
from trainer.thresholds.clinic_weights import PREVALENCE
from trainer.thresholds.policies import fit_policies_on_validation
from worker.synthetic.archive import encode
from worker.synthetic.lesion import draw_lesion

__all__ = ["small_networks"]

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")

BY_SOURCE = changed(CONFIG, draw="sources", samples_per_epoch=40, epochs=4)
#: Melanomas and nevi of each clinic.
CLINICS = {"a": (30, 30), "b": (20, 50), "c": (40, 10)}


def write_clinics(root: Path, clinics: dict[str, tuple[int, int]], *, telltale: bool = False) -> Path:
    """A data set of several clinics, whose melanomas are darker.

    With ``telltale`` they are not, and a clinic's images are the brighter the fewer melanomas it has: the source
    betrays the class.
    """
    rng = np.random.default_rng(5)
    rows = []
    (root / "images").mkdir(parents=True)
    for source, (melanomas, nevi) in clinics.items():
        share = nevi / (melanomas + nevi)
        for number in range(melanomas + nevi):
            melanoma = number < melanomas
            name = f"{source}{number:03}"
            picture = draw_lesion(hash_of(name), width=64, height=48).astype(float)
            light = (0.4 + 0.6 * share) if telltale else (0.55 if melanoma else 0.9)
            picture = np.clip(picture * light * rng.uniform(0.85, 1.15), 0, 255).astype(np.uint8)
            (root / "images" / f"{name}.jpg").write_bytes(encode(picture, ".jpg"))
            rows.append(
                {"image_id": name, "dx": "mel" if melanoma else "nv", "source": source, "patient_id": f"P{name}"}
            )
    pd.DataFrame(rows).to_csv(root / "metadata.csv", index=False)
    return root


def hash_of(name: str) -> int:
    """A number for a name, the same in every process."""
    return int.from_bytes(name.encode(), "big") % 100_000


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clinics(tmp_path_factory.mktemp("data") / "more", CLINICS)


@pytest.fixture(scope="module")
def runs(dataset: Path, tmp_path_factory: pytest.TempPathFactory, small_networks: None) -> dict[str, Path]:
    from trainer.training.fit import fit

    root = tmp_path_factory.mktemp("runs")
    found = {}
    for name, fold in (("a", "source:a"), ("b", "source:b"), ("c", "source:c"), ("all", "all")):
        found[name] = root / name
        fit([dataset], found[name], root / "cache", changed(BY_SOURCE, fold=fold))
    return found


def test_a_clinic_that_is_held_out_is_in_no_batch(dataset: Path, runs: dict[str, Path]) -> None:
    source = read_datasets([dataset]).images.set_index("image_id")["dataset"]
    manifest = read_manifest(runs["b"]).assign(source=lambda rows: rows["image_id"].map(source))
    sides = manifest.groupby("source")["split"].agg(set)
    assert sides["b"] == {VALIDATION, TEST}
    assert sides["a"] <= {TRAIN, TEST, UNUSED}
    predicted = pd.read_csv(runs["b"] / "validation.csv")
    assert set(predicted["dataset"]) == {"b"}
    assert set(read_manifest(runs["all"])["split"]) == {TRAIN, TEST}


def test_thresholds_come_from_all_clinics_and_each_weighs_the_same(runs: dict[str, Path]) -> None:
    from trainer.evaluation.crossfit import crossfit

    found = crossfit(runs["all"], [runs[name] for name in ("c", "a", "b")])
    assert [fold.fold for fold in found.folds] == ["source:a", "source:b", "source:c"]
    assert found.mean_auroc == pytest.approx(np.mean([fold.auroc for fold in found.folds]))
    assert min(fold.auroc for fold in found.folds) > 0.8
    for fold in found.folds:
        # What thresholds of the other clinics give on this one.
        assert fold.policies["youden"].sensitivity is not None
        assert 0 <= fold.policies["youden"].sensitivity.or_nan <= 1
    predicted = pd.read_csv(runs["all"] / "validation.csv")
    assert set(predicted["fold"]) == {"source:a", "source:b", "source:c"}
    calibration, policies = fit_policies_on_validation(runs["all"])
    weights = np.empty(len(predicted))
    for label, share in ((1, PREVALENCE), (0, 1 - PREVALENCE)):
        for clinic in CLINICS:
            rows = (predicted["label"] == label) & (predicted["fold"] == f"source:{clinic}")
            weights[rows] = share / 3 / rows.sum()
    calibrated = calibration.apply(predicted["probability"].to_numpy())
    assert np.average(calibrated, weights=weights) == pytest.approx(PREVALENCE, abs=0.03)
    flagged = calibrated >= policies.thresholds["youden"].threshold
    melanoma = predicted["label"] == 1
    by_clinic = [flagged[melanoma & (predicted["fold"] == f"source:{clinic}")].mean() for clinic in CLINICS]
    assert policies.thresholds["youden"].sensitivity == pytest.approx(np.mean(by_clinic))
    assert json.loads((runs["all"] / "folds.json").read_text())[0]["fold"] == "source:a"


def test_folds_of_clinics_belong_together(dataset: Path, runs: dict[str, Path], tmp_path: Path) -> None:
    from trainer.evaluation.crossfit import crossfit
    from trainer.training.fit import fit

    other = tmp_path / "all"
    fit([dataset], other, tmp_path / "cache", changed(BY_SOURCE, fold="all"))
    with pytest.raises(RunError, match="only one fold"):
        crossfit(other, [runs["a"]])
    both = tmp_path / "both"
    fit([dataset], both, tmp_path / "cache", changed(BY_SOURCE, fold="source:a+b"))
    with pytest.raises(RunError, match="both held out the source a"):
        crossfit(other, [both, runs["a"]])
    half = tmp_path / "half"
    fit([dataset], half, tmp_path / "cache", changed(BY_SOURCE, fold="1/2"))
    with pytest.raises(RunError, match="others held out whole sources"):
        crossfit(other, [runs["a"], half])


def test_a_source_that_betrays_the_class_is_caught_by_the_figures_of_each_source(tmp_path: Path) -> None:
    """Over all images the area is high, for the network knows the clinics. Within each clinic it is chance."""
    from trainer.data.diagnoses import melanoma_or_nevus
    from trainer.evaluation.trained_run import load_trained_run
    from trainer.metrics.sources import describe_sources
    from trainer.metrics.subgroups import describe
    from trainer.training.fit import fit

    data = write_clinics(tmp_path / "telltale", {"many": (90, 30), "few": (20, 120)}, telltale=True)
    more = write_clinics(tmp_path / "other", {"third": (12, 12)}, telltale=True)
    config = changed(BY_SOURCE, fold="", checkpoint="best", sampling_power=1.0, samples_per_epoch=80)
    fit([data, more], tmp_path / "run", tmp_path / "cache", config)
    trained = load_trained_run(tmp_path / "run")
    everything = read_datasets([data, more]).images.merge(read_manifest(tmp_path / "run")[["image_id", "split"]])
    scored, _ = trained.score(melanoma_or_nevus(everything[everything["split"] == TEST]))
    thresholds = {name: policy.threshold for name, policy in trained.thresholds.items()}
    pooled = describe(scored, thresholds, seed=1).auroc
    assert pooled is not None
    assert pooled.or_nan > 0.7
    found = {each.source: each for each in describe_sources(everything, scored, thresholds)}
    for source in ("many", "few"):
        area = found[source].auroc
        assert area is not None
        assert area.low is not None
        assert area.low < 0.5, f"within {source} the network knows nothing"
    assert found["many"].trained.melanoma > 3 * found["few"].trained.melanoma
    # The flags show it too: nearly all of one clinic and hardly any of the other.
    specificities = [found[name].policies["youden"].specificity for name in ("many", "few")]
    assert specificities[0] is not None
    assert specificities[1] is not None
    assert specificities[0].or_nan < specificities[1].or_nan - 0.3


def test_a_bundle_start_keeps_what_it_has_seen_out_of_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.errors import WeightsError
    from trainer.training.bundle_start import keep_unseen_apart

    everything = pd.DataFrame(
        [
            (f"{collection}{number}", f"L{collection}{number}", "mel" if number % 3 == 0 else "nv", source, collection)
            for collection, source in (("HAM10000", "vienna"), ("more", "b"))
            for number in range(60)
        ],
        columns=["image_id", "lesion_id", "dx", "dataset", "collection"],
    )
    everything["group"] = everything["lesion_id"]
    from trainer.data.splits import draw_split, manifest_sha256

    own = everything[everything["collection"] == "HAM10000"]
    sha256 = manifest_sha256(own.assign(split=draw_split(own, kind="lesion-disjoint", seed=3, fold="all")))

    class Known:
        folder = tmp_path

        class manifest:  # noqa: N801
            split_manifest_sha256 = sha256

    monkeypatch.setattr("trainer.training.bundle_start.load_bundle", lambda folder: Known)
    config = changed(BY_SOURCE, fold="", checkpoint="best", split_seed=3, weights="bundle")
    split = draw_split(everything, kind="lesion-disjoint", seed=3)
    kept = keep_unseen_apart(split, everything, config)
    assert set(everything.loc[kept == VALIDATION, "collection"]) == {"more"}
    assert (kept[split == TEST] == TEST).all()
    held_out = draw_split(everything, kind="lesion-disjoint", seed=3, fold="source:vienna")
    with pytest.raises(WeightsError, match="was trained on images of the sources vienna"):
        keep_unseen_apart(held_out, everything, changed(config, fold="source:vienna", checkpoint="last"))
    other = draw_split(everything, kind="lesion-disjoint", seed=4)
    with pytest.raises(WeightsError, match=r"made under the split .* which these data do not give"):
        keep_unseen_apart(other, everything, changed(config, split_seed=4))


def test_an_unknown_source_is_named(dataset: Path, tmp_path: Path) -> None:
    from trainer.training.fit import fit

    with pytest.raises(InputError, match=r"names the sources z\. These data have a, b, c"):
        fit([dataset], tmp_path / "run", tmp_path / "cache", changed(BY_SOURCE, fold="source:z"))


def test_what_is_like_an_image_of_the_bundle_is_kept_out_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A near-duplicate in another source says as little about new images."""
    from trainer.data.splits import draw_split, manifest_sha256
    from trainer.training.bundle_start import keep_unseen_apart

    rows = [
        (f"{collection}{number}", f"L{collection}{number}", "mel" if number % 3 == 0 else "nv", source, collection)
        for collection, source in (("HAM10000", "vienna"), ("more", "b"), ("more2", "c"))
        for number in range(60)
    ]
    everything = pd.DataFrame(rows, columns=["image_id", "lesion_id", "dx", "dataset", "collection"])
    everything["group"] = everything["lesion_id"]
    own = everything["collection"] == "HAM10000"
    alone = draw_split(everything[own], kind="lesion-disjoint", seed=3, fold="all")
    seen = alone.index[alone == TRAIN][0]
    twin = everything.index[everything["dataset"] == "b"][0]
    everything.loc[twin, "group"] = everything.loc[seen, "group"]

    class Known:
        folder = tmp_path

        class manifest:  # noqa: N801
            split_manifest_sha256 = manifest_sha256(everything[own].assign(split=alone))

    monkeypatch.setattr("trainer.training.bundle_start.load_bundle", lambda folder: Known)
    config = changed(BY_SOURCE, fold="source:b", split_seed=3, weights="bundle")
    split = draw_split(everything, kind="lesion-disjoint", seed=3, fold="source:b")
    assert split[twin] == VALIDATION
    assert keep_unseen_apart(split, everything, config)[twin] == UNUSED
    # A bundle of all these data sets is recognised too.
    Known.manifest.split_manifest_sha256 = manifest_sha256(
        everything.assign(split=draw_split(everything, kind="lesion-disjoint", seed=3, fold="all"))
    )
    whole = draw_split(everything, kind="lesion-disjoint", seed=3, fold="all")
    assert keep_unseen_apart(whole, everything, changed(config, fold="all")).equals(whole)
