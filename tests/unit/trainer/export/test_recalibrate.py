"""A bundle for a place: what is fitted anew, what stays, and what is refused."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import trainer.export.recalibrate
from tests.synthetic_bundle import FILES, make_bundle
from trainer.cli import main
from trainer.data.external_labels import read_external, refuse_recalibrated_on
from trainer.errors import DatasetError, ExportError
from trainer.evaluation.subject import EvaluationSubject, score_in_batches
from trainer.export.recalibrate import recalibrate_bundle
from trainer.report.schema import Subject
from trainer.thresholds.policies import Policies, fit_policies
from worker.errors import BundleError
from worker.inference.bundle import Bundle, load_bundle, sha256_of
from worker.inference.metrics import ClassCounts

#: Puts raw probabilities beside the rows that `read_external` gives.
Scores = Callable[[pd.DataFrame], pd.Series]
CARD = b"# synthetic 1\n\nOne image.\n\n## Limits\n\n- Some.\n"


def informed(rows: pd.DataFrame) -> pd.Series:
    """Scores that are far too low, as at a clinic that the model does not know, and order well."""
    chance = np.random.default_rng(7)
    odds = np.where(rows["label"] == 1, -3.0, -6.0) + chance.normal(0, 1, len(rows))
    return pd.Series(1 / (1 + np.exp(-odds)), index=rows.index)


def poorly_informed(rows: pd.DataFrame) -> pd.Series:
    """Half of the melanomas stand out, the others look like nevi."""
    chance = np.random.default_rng(7)
    stands_out = (rows["label"] == 1) & (np.arange(len(rows)) % 2 == 0)
    odds = np.where(stands_out, 4.0, 0.0) + chance.normal(0, 1, len(rows))
    return pd.Series(1 / (1 + np.exp(-odds)), index=rows.index)


def by_chance(rows: pd.DataFrame) -> pd.Series:
    return pd.Series(np.random.default_rng(7).uniform(size=len(rows)), index=rows.index)


class Place:
    """A bundle, and a clinic with images and labels."""

    def __init__(self, folder: Path, scores: Scores = informed, melanomas: int = 70, nevi: int = 90) -> None:
        self.source = folder / "shipped"
        content = {**FILES, "MODEL_CARD.md": CARD}
        make_bundle(self.source, files={name: hashlib.sha256(data).hexdigest() for name, data in content.items()})
        (self.source / "MODEL_CARD.md").write_bytes(CARD)
        self.images, self.labels = folder / "st-somewhere", folder / "labels.csv"
        self.images.mkdir()
        labels = ["melanoma"] * melanomas + ["nevus"] * nevi
        for number in range(len(labels)):
            (self.images / f"{number}.png").write_bytes(f"picture {number}".encode())
        rows = [f"{number}.png,{label},L{number}" for number, label in enumerate(labels)]
        self.labels.write_text("\n".join(["image,label,lesion_id", *rows]))
        self.target, self.version = folder / "clinic", "1"
        self.scores = scores
        self.scored = pd.DataFrame({"label": [int(label == "melanoma") for label in labels]})

    def subject(self, _bundle: Bundle, _engine: None) -> EvaluationSubject:
        return EvaluationSubject(
            described=Subject.model_construct(),
            policies=Policies(thresholds={}, refused={}),
            score=lambda rows: (rows.assign(raw_probability=self.scores(rows)), np.zeros(0, np.uint8)),
        )

    def recalibrate(self, **options: bool) -> tuple[Bundle, Policies]:
        return recalibrate_bundle(
            self.source, self.target, self.images, self.labels, name="clinic", version=self.version, **options
        )


@pytest.fixture
def make_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Place]:
    def make(*arguments: object, **options: object) -> Place:
        place = Place(tmp_path, *arguments, **options)  # type: ignore[arg-type]
        monkeypatch.setattr(trainer.export.recalibrate, "load_worker_engine", lambda _: None)
        monkeypatch.setattr(trainer.export.recalibrate, "bundle_subject", place.subject)
        return place

    return make


def test_calibration_and_thresholds_are_the_places_and_the_rest_is_the_sources(
    make_place: Callable[..., Place],
) -> None:
    place = make_place()
    source = load_bundle(place.source)
    made, _ = place.recalibrate()
    labels = place.scored["label"].to_numpy()
    lesions = np.array([f"L{number}" for number in range(len(labels))], object)
    calibration, policies = fit_policies(labels, informed(place.scored).to_numpy(), lesions)
    assert made.manifest.calibration == calibration
    assert made.manifest.thresholds == policies.thresholds
    assert made.manifest.recalibration is not None
    assert made.manifest.recalibration.bundle_sha256 == source.sha256
    assert made.manifest.recalibration.lesions == ClassCounts(melanoma=70, nevus=90)
    for name in FILES:
        assert (place.target / name).read_bytes() == FILES[name]
    kept = {"name", "version", "created", "thresholds", "calibration", "recalibration", "metrics", "files"}
    assert made.manifest.model_dump(exclude=kept) == source.manifest.model_dump(exclude=kept)
    assert made.sha256 != source.sha256
    assert load_bundle(place.source).sha256 == source.sha256


def test_the_figures_are_cross_fitted_and_not_those_of_the_fit(make_place: Callable[..., Place]) -> None:
    made, _ = make_place().recalibrate()
    figures, fitted = made.manifest.metrics, made.manifest.thresholds
    assert "cross-fitted in 5 parts" in figures.split
    youden = figures.policies["youden"]
    of_the_fit = fitted["youden"].sensitivity + fitted["youden"].specificity
    assert youden.sensitivity.value + youden.specificity.value < of_the_fit
    # Chosen on 70 melanoma lesions; the four fifths of them that a fold has cannot prove 95%.
    assert "sensitivity:0.95" in fitted
    assert "sensitivity:0.95" not in figures.policies


def test_the_card_tells_what_is_new_and_holds_the_old_one(make_place: Callable[..., Place]) -> None:
    place = make_place()
    made, _ = place.recalibrate()
    card = (place.target / "MODEL_CARD.md").read_text()
    assert card.startswith("# clinic 1\n")
    assert "70 melanoma images of 70 lesions" in card
    assert "# Model card of synthetic 1\n" in card
    assert card.endswith(
        "# Model card of synthetic 1\n\n**Its thresholds, and every figure that depends on them, are not "
        "those of this bundle.**\n\nOne image.\n\n## Limits\n\n- Some.\n"
    )
    assert "st-somewhere" not in card, "whoever passes the bundle on need not say whose images they were"
    assert "st-somewhere" not in (place.target / "bundle.json").read_text()
    assert f"`{made.manifest.recalibration.bundle_sha256}`" in card  # type: ignore[union-attr]
    assert "without a lesion's name" not in card
    assert "| `sensitivity:0.95` |" in card


def test_a_default_policy_that_misses_many_melanomas_is_warned_of(make_place: Callable[..., Place]) -> None:
    place = make_place(poorly_informed)
    arguments = ["recalibrate", str(place.source), str(place.target), "--version", "2"]
    told = CliRunner().invoke(main, [*arguments, "--external", str(place.images), "--labels", str(place.labels)])
    missed = load_bundle(place.target).manifest.metrics.policies["youden"].missed_melanoma_images
    assert missed > 20
    assert f"WARNING: `youden` misses {missed} of 70 melanoma images here" in told.stderr
    assert f"**`youden` misses {missed} of 70" in (place.target / "MODEL_CARD.md").read_text()


def test_images_without_a_lesion_are_reported(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.labels.write_text(place.labels.read_text().replace(",L7\n", ",\n"))
    place.recalibrate()
    assert "1 image had no lesion id" in (place.target / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    ("scores", "melanomas", "said"),
    [
        (informed, 18, r"18 melanoma and 90 nevus lesions, and at least 19 of each"),
        (by_chance, 70, "may be no better than chance"),
        (lambda rows: 1 - informed(rows), 70, r"far below one half.* swapped in the labels\. Nothing was written"),
        (lambda rows: informed(rows) * 0 + 0.5, 70, "the same output for every image"),
    ],
)
def test_what_no_threshold_can_be_chosen_on_is_refused(
    make_place: Callable[..., Place], scores: Scores, melanomas: int, said: str
) -> None:
    place = make_place(scores, melanomas=melanomas)
    with pytest.raises((ExportError, ValueError), match=said):
        place.recalibrate()
    assert not place.target.exists()


def test_too_few_nevi_are_refused_however_well_they_are_separated(make_place: Callable[..., Place]) -> None:
    """Two nevi below all melanomas make a perfect curve, which has no interval."""
    place = make_place(nevi=2)
    with pytest.raises(ExportError, match="70 melanoma and 2 nevus lesions"):
        place.recalibrate()


def test_a_bundle_is_not_evaluated_on_the_images_of_its_recalibration(
    make_place: Callable[..., Place], tmp_path: Path
) -> None:
    """The same images under other names would make every figure too good."""
    place = make_place()
    made, _ = place.recalibrate()
    rows = read_external(place.images, place.labels)
    with pytest.raises(ValueError, match=r"clinic 1 was recalibrated on 160 of 160 images: 0\.png, "):
        refuse_recalibrated_on(rows, made)
    refuse_recalibrated_on(rows, load_bundle(place.source))
    (tmp_path / "renamed.png").write_bytes((place.images / "3.png").read_bytes())
    (tmp_path / "new.png").write_bytes(b"another picture")
    rows = pd.DataFrame({"image_id": ["renamed.png", "new.png"]})
    rows["sha256"] = [sha256_of(tmp_path / name) for name in rows["image_id"]]
    with pytest.raises(ValueError, match=r"1 of 2 images: renamed\.png"):
        refuse_recalibrated_on(rows, made)
    refuse_recalibrated_on(rows[1:], made)


def test_a_recalibrated_bundle_can_be_recalibrated_to_another_place(make_place: Callable[..., Place]) -> None:
    place = make_place()
    first, _ = place.recalibrate()
    place.source, place.target = place.target, place.target.parent / "second"
    for number in range(160):
        (place.images / f"{number}.png").write_bytes(f"picture {number} of another place".encode())
    second, _ = place.recalibrate()
    origin = second.manifest.recalibration
    assert origin is not None
    assert (origin.name, origin.bundle_sha256) == ("clinic", first.sha256)
    digests = (place.target / origin.file).read_text().split()
    assert digests == sorted(digests), "by path, classes in folders of their own would stand together"
    assert sha256_of(place.images / "0.png") in digests
    assert len(digests) == 160
    assert (place.target / "MODEL_CARD.md").read_text().count("## Recalibrated") == 2


def test_a_bundle_is_replaced_only_when_asked_and_never_its_own_source(make_place: Callable[..., Place]) -> None:
    place = make_place()
    first, _ = place.recalibrate()
    with pytest.raises(ExportError, match="--replace"):
        place.recalibrate()
    assert load_bundle(place.target).sha256 == first.sha256
    with pytest.raises(ExportError, match="already is clinic 1"):
        place.recalibrate(replace=True)
    place.version = "2"
    assert place.recalibrate(replace=True)[0].manifest.version == "2"
    place.target = place.source
    with pytest.raises(ExportError, match="is both source and target"):
        place.recalibrate(replace=True)


def test_a_changed_source_and_a_folder_with_something_else_are_refused(make_place: Callable[..., Place]) -> None:
    place = make_place()
    place.target.mkdir()
    (place.target / "letter.txt").write_text("dear colleague")
    with pytest.raises(ExportError, match="holds something else"):
        place.recalibrate()
    (place.source / "model.bin").write_bytes(b"other")
    with pytest.raises(BundleError, match=r"model\.bin"):
        place.recalibrate()


def test_the_command_line_prints_figures_and_refusals(make_place: Callable[..., Place]) -> None:
    place = make_place(melanomas=40)
    arguments = ["recalibrate", str(place.source), str(place.target), "--version", "2"]
    told = CliRunner().invoke(main, [*arguments, "--external", str(place.images), "--labels", str(place.labels)])
    assert told.exit_code == 0, told.output
    assert "AUROC on these images 0.9" in told.stdout
    assert "sensitivity:0.95: not offered. 40 melanoma lesions" in told.stdout
    assert f"{place.target}: clinic 2, SHA-256 " in told.stdout
    assert told.stderr == "Scoring the images ...\n"
    again = CliRunner().invoke(main, [*arguments, "--external", str(place.images), "--labels", str(place.labels)])
    assert (again.exit_code, again.stderr.count("\n")) == (2, 1)


def test_more_images_than_fit_into_memory_are_scored_part_by_part(tmp_path: Path) -> None:
    asked: list[int] = []

    def score(rows: pd.DataFrame) -> tuple[pd.DataFrame, np.ndarray]:
        asked.append(len(rows))
        if (rows["number"] == 3).any() and "broken" in rows:
            raise DatasetError("3 cannot be used.")
        return rows.assign(probability=rows["number"] / 10), np.zeros(0, np.uint8)

    subject = EvaluationSubject(described={}, policies=Policies(thresholds={}, refused={}), score=score)
    rows = pd.DataFrame({"number": range(7)})
    scored = score_in_batches(subject, rows, part=3)
    assert (asked, scored["probability"].tolist()) == ([3, 3, 1], [number / 10 for number in range(7)])
    assert scored.index.tolist() == list(range(7))
    # What cannot be read in one part does not keep the faults of the others back.
    with pytest.raises(DatasetError, match=r"^3 cannot be used\.$"):
        score_in_batches(subject, rows.assign(broken=True), part=3)
    assert asked[3:] == [3, 3, 1]
