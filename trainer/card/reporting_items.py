"""Where a model card answers the items of TRIPOD+AI and CLEAR Derm, and which are not done and why.

TRIPOD+AI: Collins et al., "TRIPOD+AI statement", BMJ 385:e078378 (2024); numbers and topics are of its checklist of
11 January 2024. CLEAR Derm: Daneshjou et al., JAMA Dermatology 158:90 (2022); its four parts and 25 recommendations are
given as topics in our own words, without its text. Neither is a score: an answer says where to look.
"""

from dataclasses import dataclass

from trainer.report.schema import Report


@dataclass(frozen=True, kw_only=True)
class Item:
    """One item of a checklist.

    Args:
        number: in the published checklist, or the part of it.
        topic: what it is about.
        answer: where it is answered, or why not.
    """

    number: str
    topic: str
    answer: str


def _items(rows: tuple[tuple[str, str, str], ...]) -> list[Item]:
    return [Item(number=number, topic=topic, answer=answer) for number, topic, answer in rows]


def tripod_ai(report: Report | None) -> list[Item]:
    """TRIPOD+AI, all items.

    Args:
        report: of the evaluation, or None when there is none.
    """
    seeds = max(1, len(report.seeds.runs)) if report else 1
    shown = f"{seeds} {'seed' if seeds == 1 else 'seeds'}"
    groups = "Groups" if report else "Not done: the model was not evaluated with a report"
    return _items(
        (
            ("1", "Title", "Title of this card"),
            ("2", "Abstract", "Not done: a card is no article; see Test results"),
            ("3a", "Healthcare context and rationale", "Intended use"),
            ("3b", "Target population, purpose, users", "Intended use"),
            ("3c", "Known health inequalities", "Data: hardly any dark skin, on which melanoma is often found late"),
            ("4", "Objectives", "Intended use: development, and evaluation on held-out lesions of the same data set"),
            ("5a", "Sources of data, representativeness", "Data"),
            ("5b", "Dates of the data", "Not known by image: HAM10000 was collected over about 20 years"),
            ("6a", "Setting and centres", "Data: two centres, Vienna and Queensland"),
            ("6b", "Eligibility", "Data: the selection is that of HAM10000's authors; melanoma and nevus are scored"),
            ("6c", "Treatments", "Not applicable: the image precedes treatment"),
            ("7", "Data preparation", "Model; the same decode and resize code in training and in service"),
            ("8a", "Outcome", "Data: the diagnosis that HAM10000 records, at the time of the image"),
            ("8b", "Outcome assessors", "Not known beyond what HAM10000 states (dx_type)"),
            ("8c", "Blinding of the outcome", "Not known; diagnoses were made before and without the model"),
            ("9a", "Choice of predictors", "Not applicable: the image alone, no age, sex or site"),
            ("9b", "Definition of predictors", "Model: the pixels of one dermoscopic image"),
            ("9c", "Predictor assessors", "Not applicable: no one interprets the image first"),
            (
                "10",
                "Sample size",
                "Data: all that HAM10000 holds; intervals show what that allows. No calculation before",
            ),
            (
                "11",
                "Missing data",
                "The image is never missing; unknown age, sex or site is a group of its own in Groups",
            ),
            ("12a", "Use and partition of data", "Data"),
            ("12b", "Handling of predictors", "Model"),
            ("12c", "Model, building steps, internal validation", "Model; docs/experiments.md lists what was tried"),
            ("12d", "Heterogeneity across clusters", f"{groups}, by source"),
            ("12e", "Measures and plots", "Test results, Calibration; plots in the report of `dermq-train evaluate`"),
            ("12f", "Model updating", "Calibration; `dermq-train recalibrate` for images of another clinic"),
            ("12g", "How predictions are calculated", "Model; the bundle's engines, compared in Engine parity"),
            (
                "13",
                "Class imbalance",
                "Model: balanced drawing in training, corrected by calibration",
            ),
            ("14", "Fairness", "Not addressed in training; examined in Groups"),
            ("15", "Model output and thresholds", "Policies"),
            ("16", "Training versus evaluation", "Data: the same centres and the same selection; no difference"),
            (
                "17",
                "Ethical approval",
                "As stated by HAM10000's authors; none was sought for this use of public images",
            ),
            ("18a", "Funding", "Not stated: not known to the program that writes this card"),
            ("18b", "Conflicts of interest", "Not stated: not known to the program that writes this card"),
            ("18c", "Protocol", "Not prepared"),
            ("18d", "Registration", "Not registered"),
            ("18e", "Data sharing", "Data: public"),
            ("18f", "Code sharing", "The repository that this card is part of, Apache-2.0"),
            ("19", "Patient and public involvement", "None"),
            ("20a", "Flow of participants", "Data; diagram in the report"),
            ("20b", "Characteristics", groups),
            ("20c", "Comparison with development data", "Not done: lesions were drawn at random from the same data"),
            ("21", "Numbers in each analysis", "Data, Test results"),
            ("22", "Full model", "The bundle; licence below"),
            ("23a", "Performance with intervals", "Test results, Groups"),
            (
                "23b",
                "Heterogeneity in performance",
                f"{groups}, by source; {shown}",
            ),
            ("24", "Results of updating", "Not applicable: one version, calibrated once; see Calibration"),
            ("25", "Interpretation", "Limits"),
            ("26", "Limitations", "Limits"),
            ("27a", "Poor or missing input", "Limits: the quality gate; ungradable images go to a human"),
            ("27b", "User interaction and expertise", "Intended use: dermatologists read the worklist"),
            ("27c", "Next steps", "Limits: images of other clinics, with `dermq-train evaluate --external`"),
        )
    )


def clear_derm(report: Report | None) -> list[Item]:
    """CLEAR Derm, by topic.

    Args:
        report: of the evaluation, or None when there is none.
    """
    robustness = "Robustness, with synthetic artefacts; real ones are not marked in HAM10000"
    if report is None or report.robustness is None:
        robustness = "Not done in this evaluation"
    drawn = (
        report is not None
        and report.subject.origin is not None
        and any(step.config.artefacts for step in report.subject.origin.lineage())
    )
    synthetic = "Artefacts drawn on training images, see Model" if drawn else "None in training"
    others = "Other diagnoses" if report and report.other_diagnoses else "Not done in this evaluation"
    groups = "Groups" if report else "Not done: the model was not evaluated with a report"
    data, technique, assessment, application = "Data", "Technique", "Technical assessment", "Application"
    return _items(
        (
            (data, "Image types", "Intended use: dermoscopic images"),
            (data, "Artefacts in images", robustness),
            (data, "Technical details of acquisition", "Data: by source only; cameras are not recorded by image"),
            (data, "Preprocessing", "Model"),
            (data, "Synthetic images", f"{synthetic}; synthetic artefacts in Robustness; synthetic reference images"),
            (data, "Public images referenced", "Data"),
            (
                data,
                "Patient-level metadata",
                "Data: age, sex and site; no patient is named, so two lesions may be one's",
            ),
            (data, "Skin tone and how it was assessed", f"{groups}: estimated from the image border, exploratory"),
            (data, "Biases from patient information", "Limits; metadata are not an input"),
            (data, "Partitions", "Data"),
            (data, "Sizes of training, validation and test sets", "Data"),
            (data, "External test set", "Not done in this evaluation; `dermq-train evaluate --external` takes one"),
            (data, "Several makers of devices", f"{groups}, by source; no finer"),
            (data, "Class distribution and balance", "Data, Model"),
            (data, "Images outside the distribution", others),
            (technique, "Labels: how and by whom", "Data: dx_type of HAM10000"),
            (technique, "Accepted diagnostic labels", "Data: the seven of HAM10000"),
            (technique, "Histology for malignancy", "Data: every melanoma; nevi in part, see Groups"),
            (technique, "Development of the algorithm", "Model; the settings are in the run's config.json"),
            (
                assessment,
                "Public evaluation",
                "The bundle and the commands are public; the test split is named by hash",
            ),
            (assessment, "Performance measures", "Test results, Calibration"),
            (assessment, "Benchmarking and novelty", "docs/experiments.md; not compared with readers"),
            (assessment, "Bias assessment", groups),
            (application, "Use cases and target conditions", "Intended use"),
            (
                application,
                "Impact on the care team and patients",
                "Not studied; Intended use says what must not follow",
            ),
        )
    )
