"""Thresholds, discrimination, calibration, predictive values and net benefit."""

from trainer.data.splits import VALIDATION
from trainer.metrics.cross_fitting import CROSS_FIT_CAVEAT
from trainer.metrics.figures import Recalibrated, Refusal
from trainer.report import plots
from trainer.report.document import (
    NONE,
    Block,
    Paragraph,
    Plot,
    Plots,
    Section,
    Table,
    interval,
    number,
    percent,
    percent_at_least,
    percent_interval,
)
from trainer.report.schema import Report
from trainer.thresholds.policies import BOUND_CAVEAT, OUT_OF_FOLD_CAVEAT
from worker.inference.bundle import LesionSensitivity
from worker.inference.metrics import CalibrationMeasures, Estimate
from worker.terminal import shown_probability

#: Images outside test, each predicted by the run that held it out.
OUT_OF_FOLD = "out-of-fold"


def policies(report: Report) -> Section:
    """The thresholds, and why some policies are not offered."""
    side = _fitted_on(report)
    # Images of a clinic influenced the choice of no epoch and no run.
    caveat = {VALIDATION: f" {BOUND_CAVEAT}", OUT_OF_FOLD: f" {OUT_OF_FOLD_CAVEAT}"}.get(side, "")
    noun = "predictions" if side == OUT_OF_FOLD else "images"
    rows = [
        (
            name,
            shown_probability(policy.threshold),
            shown_probability(policy.borderline_threshold),
            percent(policy.sensitivity),
            percent(policy.specificity),
            *_proven(policy.by_lesion),
        )
        for name, policy in report.policies.items()
    ]
    blocks: list[Block] = [
        Paragraph(
            text=f"Thresholds and calibration were fitted on {side} {noun} and are unchanged since. youden is the "
            "threshold with the greatest sensitivity + specificity - 1. sensitivity:X is the highest threshold whose "
            "one-sided 95% lower confidence bound of sensitivity (Clopper-Pearson) on these melanoma lesions is at "
            "least X. A lesion counts as caught if every image of it is flagged, because an archive may hold any one "
            f"of them alone.{caveat}"
        ),
        Table(
            caption=f"Thresholds, with figures on the {side} {noun} that they were chosen on",
            head=(
                "Policy",
                "High risk from",
                "Borderline from",
                f"Sensitivity ({side})",
                f"Specificity ({side})",
                f"Melanoma lesions caught ({side})",
                "Lower bound",
            ),
            rows=rows,
            note="Sensitivity and specificity are by image. A lesion is caught if every image of it is flagged.",
        ),
    ]
    blocks += [Paragraph(text=f"{name} is not offered. {why}") for name, why in report.refused_policies.items()]
    return Section(name="thresholds", title="Thresholds", blocks=blocks)


def _fitted_on(report: Report) -> str:
    """Which images calibration and thresholds were fitted on."""
    if report.subject.recalibrated:
        return "recalibration"
    return OUT_OF_FOLD if report.subject.folds else VALIDATION


def _proven(found: LesionSensitivity | None) -> tuple[str, str]:
    if found is None:
        return NONE, NONE
    return f"{found.caught} of {found.lesions}", percent_at_least(found.lower_bound)


def discrimination(report: Report) -> Section:
    """AUROC, AUPRC and the operating points, by image and by lesion."""
    assessment = report.assessment
    by_image, by_lesion = assessment.images, assessment.lesions
    overall = Table(
        caption="Melanoma against nevus, with 95% intervals",
        head=("Figure", "By image", "By lesion (its highest image)"),
        rows=(
            ("AUROC", interval(by_image.auroc), interval(by_lesion.auroc)),
            ("AUPRC (average precision)", interval(by_image.auprc), interval(by_lesion.auprc)),
            (
                "Specificity at 95% sensitivity, read off the curve",
                percent_interval(by_image.specificity_at_95_sensitivity),
                percent_interval(by_lesion.specificity_at_95_sensitivity),
            ),
        ),
        note="The specificity at 95% sensitivity uses a threshold that was chosen on these images. It describes the "
        "curve, not a policy.",
    )
    rows = []
    for name, policy in by_image.policies.items():
        lesion = by_lesion.policies[name]
        rows += [
            (f"{name}: sensitivity", percent_interval(policy.sensitivity), percent_interval(lesion.sensitivity)),
            (
                f"{name}: sensitivity, every image flagged",
                "",
                percent_interval(lesion.sensitivity_every_image),
            ),
            (f"{name}: specificity", percent_interval(policy.specificity), percent_interval(lesion.specificity)),
            (
                f"{name}: melanomas missed",
                f"{policy.missed} of {assessment.counts.images.melanoma}",
                f"{lesion.missed} of {assessment.counts.lesions.melanoma}",
            ),
        ]
    at = Table(
        caption="At the thresholds of the policies, with 95% intervals",
        head=("Policy and figure", "By image", "By lesion (any image flagged)"),
        rows=rows,
        note="By lesion, one flagged image is enough, so that a lesion with several images has several chances to be "
        "caught, and several to be flagged needlessly. Each lesion counts once.",
    )
    points = "; ".join(
        f"{name} at sensitivity {policy.sensitivity.or_nan:.3f} and specificity {policy.specificity.or_nan:.3f}"
        for name, policy in by_image.policies.items()
    )
    curves = Plots(
        plots=(
            Plot(
                source=plots.roc(assessment),
                alternative=f"ROC curve, area {by_image.auroc.or_nan:.3f}. Operating points: {points}.",
                caption="ROC curve by image, with the policies.",
            ),
            Plot(
                source=plots.precision_recall(assessment),
                alternative=f"Precision-recall curve, average precision {by_image.auprc.or_nan:.3f}.",
                caption="Precision-recall curve by image. Precision depends on the share of melanomas.",
            ),
        )
    )
    remarks = [Paragraph(kind="warning", text=remark) for remark in report.remarks]
    return Section(name="discrimination", title="Discrimination", blocks=(overall, *remarks, curves, at))


def calibration(report: Report, first: str, second: str) -> Section:
    """Reliability curve and measures, before and after."""
    measures = report.assessment.calibration
    noun = "predictions" if _fitted_on(report) == OUT_OF_FOLD else "images"
    return Section(
        name="calibration",
        title="Calibration",
        blocks=(
            Paragraph(
                text="If probabilities are calibrated, 3 in 10 images with a probability of 0.3 are melanomas. Platt "
                f"scaling was fitted on {_fitted_on(report)} {noun} and holds at their share of melanomas. Where "
                "melanoma is rarer, probabilities are too high."
            ),
            _calibration_table(measures.before, measures.after, (first, second)),
            _calibration_plot(measures.before, measures.after, (first, second)),
        ),
    )


def recalibrated(report: Report, found: Recalibrated) -> Section:
    """Figures after recalibration to the images of another clinic, cross-fitted."""
    refusals = [Paragraph(text=f"{name}: {why}") for name, why in found.refused.items()]
    if isinstance(found, Refusal):
        return Section(name="recalibration", title="After recalibration", blocks=refusals)
    original = report.assessment
    rows = []
    for name, policy in found.policies.items():
        before = original.images.policies.get(name)
        spread = " to ".join(shown_probability(end(policy.thresholds)) for end in (min, max))
        rows += [
            (
                f"{name}: threshold",
                shown_probability(before.threshold) if before else "not offered",
                spread,
            ),
            (
                f"{name}: sensitivity",
                percent_interval(before.sensitivity) if before else "",
                percent_interval(policy.sensitivity),
            ),
            (
                f"{name}: specificity",
                percent_interval(before.specificity) if before else "",
                percent_interval(policy.specificity),
            ),
            (f"{name}: melanoma images missed", str(before.missed) if before else "", str(policy.missed)),
        ]
    return Section(
        name="recalibration",
        title="After recalibration",
        blocks=(
            Paragraph(
                text=f"Calibration and thresholds were fitted again on these images, in {found.folds} parts, so that "
                "each image is flagged by a fit on other lesions. A clinic that recalibrates on as many labelled "
                f"images of its own can expect about these figures. {CROSS_FIT_CAVEAT}"
            ),
            Table(
                caption="With the original thresholds and after recalibration, by image, with 95% intervals",
                head=("Policy and figure", "Original", "Recalibrated (cross-fitted)"),
                rows=rows,
            ),
            _calibration_table(original.calibration.after, found.calibration, ("as shipped", "recalibrated")),
            _calibration_plot(original.calibration.after, found.calibration, ("as shipped", "recalibrated")),
            *refusals,
        ),
    )


def _calibration_table(before: CalibrationMeasures, after: CalibrationMeasures, names: tuple[str, str]) -> Table:
    def row(label: str, name: str) -> tuple[str, str, str]:
        return label, interval(getattr(before, name)), interval(getattr(after, name))

    def shares(part: CalibrationMeasures) -> str:
        return f"{number(part.mean_predicted)}; {number(part.observed)}"

    return Table(
        caption="Calibration by image, with 95% intervals",
        head=("Measure", names[0].capitalize(), names[1].capitalize()),
        rows=(
            ("Mean predicted; observed share", shares(before), shares(after)),
            row("Brier score (0 is best)", "brier"),
            row("Expected calibration error, 10 groups (0 is best)", "ece"),
            row("Calibration slope (1 is best)", "slope"),
            row("Calibration in the large (0 is best)", "intercept"),
        ),
        note="A slope below 1 means too extreme probabilities, and calibration in the large above 0 more melanomas "
        "than predicted. A calibration error is never negative, so its interval lies above 0 even for a perfect model.",
    )


def _calibration_plot(before: CalibrationMeasures, after: CalibrationMeasures, names: tuple[str, str]) -> Plots:
    worst = max(after.bins, key=lambda part: abs(part.predicted - part.observed))
    return Plots(
        plots=(
            Plot(
                source=plots.reliability(before, after, names),
                alternative=f"Reliability curves. Calibration error {names[0]} {before.ece.or_nan:.3f}, {names[1]} "
                f"{after.ece.or_nan:.3f}. The largest difference {names[1]}: {worst.predicted:.2f} predicted, "
                f"{worst.observed:.2f} observed.",
                caption="Reliability curves of ten groups of equal size. On "
                "the dotted line, predicted and observed agree.",
            ),
        )
    )


def predictive(report: Report) -> Section:
    """PPV, NPV and share of flagged images at several prevalences."""
    rows = [
        (
            f"{name}, {percent(entry.prevalence, 0)}",
            percent_interval(entry.ppv),
            percent_interval(entry.npv, 2),
            percent_interval(entry.referred),
        )
        for name, entries in report.assessment.prevalence.items()
        for entry in entries
    ]
    return Section(
        name="predictive-values",
        title="Predictive values at other prevalences",
        blocks=(
            Paragraph(
                text="Predictive values by Bayes' theorem for archives with fewer melanomas, if sensitivity and "
                "specificity are the same there, which they may not be. A high NPV at low prevalence is mostly the "
                "prevalence: at 1%, tossing a coin has an NPV of 99%."
            ),
            Table(
                caption="Predictive values and share of flagged images, with 95% intervals",
                head=("Policy, prevalence", "PPV: flagged images that are melanomas", "NPV", "Images flagged"),
                rows=rows,
            ),
        ),
    )


def decision(report: Report) -> Section:
    """The decision curve."""
    rows = report.assessment.decision_curve
    better = _stretches([row.gain.low is not None and row.gain.low > 0 for row in rows])
    named = [
        f"from {percent(rows[first].threshold, 0)} to {percent(rows[last].threshold, 0)}" for first, last in better
    ]
    verdict = (
        "On these images the model is better than both, with the whole interval of the difference, "
        f"{' and '.join(named)}."
        if better
        else "On these images there is no threshold at which the model is clearly better than both."
    )
    shown = [row for row in rows if row.threshold in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)]
    return Section(
        name="decision-curve",
        title="Decision curve",
        blocks=(
            Paragraph(
                text="Net benefit is the share of melanomas found, less the weighted share of needless referrals. To "
                "refer from a probability of 10% means that one melanoma is worth nine needless referrals (Vickers & "
                f"Elkin, 2006). The share of melanomas is that of these images. {verdict}"
            ),
            Plots(
                plots=(
                    Plot(
                        source=plots.decision_curve(rows),
                        alternative="Decision curve of the model, of "
                        f"referring everyone and of referring no one. {verdict}",
                        caption="Net benefit with its 95% interval.",
                    ),
                )
            ),
            Table(
                caption="Net benefit per 100 images",
                head=("Refer from", "Model", "Refer everyone", "Model, less the better of everyone and no one"),
                rows=[
                    (
                        percent(row.threshold, 0),
                        interval(_hundredfold(row.model), 2),
                        f"{100 * row.refer_all:.2f}",
                        interval(_hundredfold(row.gain), 2),
                    )
                    for row in shown
                ],
            ),
        ),
    )


def _hundredfold(estimate: Estimate) -> Estimate:
    return Estimate(**{name: None if value is None else 100 * value for name, value in estimate})


def _stretches(holds: list[bool]) -> list[tuple[int, int]]:
    """First and last index of each unbroken stretch of true values."""
    stretches: list[tuple[int, int]] = []
    for place, held in enumerate(holds):
        if held and stretches and stretches[-1][1] == place - 1:
            stretches[-1] = (stretches[-1][0], place)
        elif held:
            stretches.append((place, place))
    return stretches
