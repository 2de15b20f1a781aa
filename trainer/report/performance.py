"""How good it is: thresholds, discrimination, calibration, predictive values, net benefit."""

from typing import Any

from trainer.data.splits import VALIDATION
from trainer.metrics.cross_fitting import CROSS_FIT_CAVEAT
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
from trainer.thresholds.policies import BOUND_CAVEAT, OUT_OF_FOLD_CAVEAT
from worker.terminal import shown_probability

#: Images outside test, each predicted by the run that had left it out.
OUT_OF_FOLD = "out-of-fold"


def policies(report: dict[str, Any]) -> Section:
    """The thresholds, frozen on validation, and those that validation does not support."""
    side = _fitted_on(report)
    # The images of a place chose no epoch and no run.
    caveat = {VALIDATION: f" {BOUND_CAVEAT}", OUT_OF_FOLD: f" {OUT_OF_FOLD_CAVEAT}"}.get(side, "")
    noun = "predictions" if side == OUT_OF_FOLD else "images"
    rows = [
        (
            name,
            shown_probability(policy["threshold"]),
            shown_probability(policy["borderline_threshold"]),
            percent(policy["sensitivity"]),
            percent(policy["specificity"]),
            *_proven(policy["by_lesion"]),
        )
        for name, policy in report["policies"].items()
    ]
    blocks: list[Block] = [
        Paragraph(
            text=f"Thresholds and calibration were fitted on {side} {noun} and not changed since. youden is the "
            "threshold with the greatest sensitivity + specificity - 1. sensitivity:X is the highest threshold whose "
            "one-sided 95% lower confidence bound of sensitivity (Clopper-Pearson) on the melanoma lesions of these "
            "is at least X; a lesion counts as caught only when every one of its images is flagged, because an archive "
            f"may hold any one of them alone.{caveat}"
        ),
        Table(
            caption=f"TrainedRun thresholds, with what they gave on the {side} {noun} they were chosen on",
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
            note="Sensitivity and specificity are by image; a lesion is caught when every image of it is flagged.",
        ),
    ]
    blocks += [Paragraph(text=f"{name} is not offered. {why}") for name, why in report["refused_policies"].items()]
    return Section(name="thresholds", title="Thresholds", blocks=blocks)


def _fitted_on(report: dict[str, Any]) -> str:
    """Which images calibration and thresholds were fitted on: a recalibrated bundle has them from those of a place."""
    if report["run"].get("recalibrated"):
        return "recalibration"
    return OUT_OF_FOLD if report["run"].get("folds") else VALIDATION


def _proven(found: dict[str, Any] | None) -> tuple[str, str]:
    return (
        (NONE, NONE)
        if found is None
        else (f"{found['caught']} of {found['lesions']}", percent_at_least(found["lower_bound"]))
    )


def discrimination(report: dict[str, Any]) -> Section:
    """AUROC, AUPRC and the operating points, by image and by lesion."""
    assessment = report["assessment"]
    by_image, by_lesion = assessment["images"], assessment["lesions"]
    overall = Table(
        caption="Telling melanomas from nevi, with 95% intervals",
        head=("Figure", "By image", "By lesion (its highest image)"),
        rows=(
            ("AUROC", interval(by_image["auroc"]), interval(by_lesion["auroc"])),
            ("AUPRC (average precision)", interval(by_image["auprc"]), interval(by_lesion["auprc"])),
            (
                "Specificity at 95% sensitivity, read off the curve",
                percent_interval(by_image["specificity_at_95_sensitivity"]),
                percent_interval(by_lesion["specificity_at_95_sensitivity"]),
            ),
        ),
        note="The specificity at 95% sensitivity uses a threshold found on these very images; it describes the curve "
        "and is not what a worker does.",
    )
    rows = []
    for name, policy in by_image["policies"].items():
        lesion = by_lesion["policies"][name]
        rows += [
            (f"{name}: sensitivity", percent_interval(policy["sensitivity"]), percent_interval(lesion["sensitivity"])),
            (
                f"{name}: sensitivity, every image flagged",
                "",
                percent_interval(lesion["sensitivity_every_image"]),
            ),
            (f"{name}: specificity", percent_interval(policy["specificity"]), percent_interval(lesion["specificity"])),
            (
                f"{name}: melanomas missed",
                f"{policy['missed']} of {assessment['counts']['images']['melanoma']}",
                f"{lesion['missed']} of {assessment['counts']['lesions']['melanoma']}",
            ),
        ]
    at = Table(
        caption="At the frozen thresholds, with 95% intervals",
        head=("Policy and figure", "By image", "By lesion (any image flagged)"),
        rows=rows,
        note="By lesion, one flagged image is enough: a lesion with several images has several chances to be caught, "
        "and several to be flagged needlessly. Each lesion counts once, however often it was photographed.",
    )
    points = "; ".join(
        f"{name} at sensitivity {policy['sensitivity']['value']:.3f} and specificity "
        f"{policy['specificity']['value']:.3f}"
        for name, policy in by_image["policies"].items()
    )
    curves = Plots(
        plots=(
            Plot(
                source=plots.roc(assessment),
                alternative=f"ROC curve, area {by_image['auroc']['value']:.3f}. Operating points: {points}.",
                caption="ROC curve by image, with the frozen operating points.",
            ),
            Plot(
                source=plots.precision_recall(assessment),
                alternative=f"Precision-recall curve, average precision {by_image['auprc']['value']:.3f}.",
                caption="Precision-recall curve by image. Precision depends on the share of melanomas.",
            ),
        )
    )
    remarks = [Paragraph(kind="warning", text=remark) for remark in report.get("remarks", ())]
    return Section(name="discrimination", title="Discrimination", blocks=(overall, *remarks, curves, at))


def calibration(report: dict[str, Any], first: str, second: str) -> Section:
    """Reliability curve and measures, before and after."""
    measures = report["assessment"]["calibration"]
    noun = "predictions" if _fitted_on(report) == OUT_OF_FOLD else "images"
    return Section(
        name="calibration",
        title="Calibration",
        blocks=(
            Paragraph(
                text="Does a probability of 0.3 mean that 3 in 10 such images are melanomas? Platt scaling was fitted "
                f"on {_fitted_on(report)} {noun} and holds at their share of melanomas; where melanoma is rarer, "
                "probabilities are too high."
            ),
            _calibration_table(measures["before"], measures["after"], (first, second)),
            _calibration_plot(measures["before"], measures["after"], (first, second)),
        ),
    )


def recalibrated(report: dict[str, Any]) -> Section:
    """Figures after recalibration to the external images, cross-fitted."""
    found = report["recalibrated"]
    refusals = [Paragraph(text=f"{name}: {why}") for name, why in found["refused"].items()]
    if "policies" not in found:
        return Section(name="recalibration", title="After recalibration", blocks=refusals)
    original = report["assessment"]
    rows = []
    for name, policy in found["policies"].items():
        before = original["images"]["policies"].get(name)
        spread = " to ".join(shown_probability(end(policy["thresholds"])) for end in (min, max))
        rows += [
            (
                f"{name}: threshold",
                shown_probability(before["threshold"]) if before else "not offered",
                spread,
            ),
            (
                f"{name}: sensitivity",
                percent_interval(before["sensitivity"]) if before else "",
                percent_interval(policy["sensitivity"]),
            ),
            (
                f"{name}: specificity",
                percent_interval(before["specificity"]) if before else "",
                percent_interval(policy["specificity"]),
            ),
            (f"{name}: melanoma images missed", str(before["missed"]) if before else "", str(policy["missed"])),
        ]
    return Section(
        name="recalibration",
        title="After recalibration",
        blocks=(
            Paragraph(
                text=f"Calibration and thresholds were fitted again on these images in {found['folds']} parts: each "
                "image is judged by a fit on other lesions. This says about what a site could reach that "
                f"recalibrates on as many labelled images of its own. {CROSS_FIT_CAVEAT}"
            ),
            Table(
                caption="With the original thresholds and after recalibration, by image, with 95% intervals",
                head=("Policy and figure", "Original", "Recalibrated (cross-fitted)"),
                rows=rows,
            ),
            _calibration_table(original["calibration"]["after"], found["calibration"], ("as shipped", "recalibrated")),
            _calibration_plot(original["calibration"]["after"], found["calibration"], ("as shipped", "recalibrated")),
            *refusals,
        ),
    )


def _calibration_table(before: dict[str, Any], after: dict[str, Any], names: tuple[str, str]) -> Table:
    def row(label: str, name: str) -> tuple[str, str, str]:
        return label, interval(before[name]), interval(after[name])

    def shares(part: dict[str, Any]) -> str:
        return f"{number(part['mean_predicted'])}; {number(part['observed'])}"

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
        note="Slope below 1: probabilities too extreme. Calibration in the large above 0: more melanomas than "
        "predicted. A calibration error is never negative, so its interval lies above 0 even where nothing is wrong.",
    )


def _calibration_plot(before: dict[str, Any], after: dict[str, Any], names: tuple[str, str]) -> Plots:
    worst = max(after["bins"], key=lambda part: abs(part["predicted"] - part["observed"]))
    return Plots(
        plots=(
            Plot(
                source=plots.reliability(before, after, names),
                alternative=f"Reliability curves. Calibration error {names[0]} {before['ece']['value']:.3f}, "
                f"{names[1]} {after['ece']['value']:.3f}; {names[1]} is farthest off where {worst['predicted']:.2f} "
                f"was predicted and {worst['observed']:.2f} observed.",
                caption="Reliability: ten groups of equal size, equal probabilities in one. On the dotted line, "
                "predicted and observed agree.",
            ),
        )
    )


def predictive(report: dict[str, Any]) -> Section:
    """PPV, NPV and referral fraction at several prevalences."""
    rows = [
        (
            f"{name}, {percent(entry['prevalence'], 0)}",
            percent_interval(entry["ppv"]),
            percent_interval(entry["npv"], 2),
            percent_interval(entry["referred"]),
        )
        for name, entries in report["assessment"]["prevalence"].items()
        for entry in entries
    ]
    return Section(
        name="predictive-values",
        title="What a flag means elsewhere",
        blocks=(
            Paragraph(
                text="Sensitivity and specificity are carried over by Bayes' theorem to archives with fewer "
                "melanomas. They may themselves differ there; this shows the effect of prevalence alone. A high NPV "
                "at low prevalence is mostly the prevalence: at 1%, NPV would be 99% for a coin."
            ),
            Table(
                caption="Predictive values and referrals, with 95% intervals",
                head=("Policy, prevalence", "PPV: flagged images that are melanomas", "NPV", "Images flagged"),
                rows=rows,
            ),
        ),
    )


def decision(report: dict[str, Any]) -> Section:
    """The decision curve."""
    rows = report["assessment"]["decision_curve"]
    better = _stretches([row["gain"]["low"] is not None and row["gain"]["low"] > 0 for row in rows])
    named = [
        f"from {percent(rows[first]['threshold'], 0)} to {percent(rows[last]['threshold'], 0)}"
        for first, last in better
    ]
    verdict = (
        "On these images the model is better than both, with the whole interval of the difference, "
        f"{' and '.join(named)}."
        if better
        else "On these images the model is nowhere better than both with the whole interval of the difference."
    )
    shown = [row for row in rows if row["threshold"] in (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)]
    return Section(
        name="decision-curve",
        title="Decision curve",
        blocks=(
            Paragraph(
                text="Net benefit counts melanomas found, less needless referrals at the exchange that a reader "
                "accepts: who refers from a probability of 10% weighs one melanoma as nine needless referrals "
                f"(Vickers & Elkin, 2006). The share of melanomas is that of these images. {verdict}"
            ),
            Plots(
                plots=(
                    Plot(
                        source=plots.decision_curve(rows),
                        alternative="Decision curve of the model, of referring everyone and of referring no one. "
                        f"{verdict}",
                        caption="Net benefit with its 95% interval.",
                    ),
                )
            ),
            Table(
                caption="Net benefit per 100 images",
                head=("Refer from", "Model", "Refer everyone", "Model, less the better of everyone and no one"),
                rows=[
                    (
                        percent(row["threshold"], 0),
                        interval(_hundredfold(row["model"]), 2),
                        f"{100 * row['refer_all']:.2f}",
                        interval(_hundredfold(row["gain"]), 2),
                    )
                    for row in shown
                ],
            ),
        ),
    )


def _hundredfold(estimate: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value is None else 100 * value for name, value in estimate.items()}


def _stretches(holds: list[bool]) -> list[tuple[int, int]]:
    """First and last number of each unbroken stretch in which something holds."""
    stretches: list[tuple[int, int]] = []
    for place, held in enumerate(holds):
        if held and stretches and stretches[-1][1] == place - 1:
            stretches[-1] = (stretches[-1][0], place)
        elif held:
            stretches.append((place, place))
    return stretches
