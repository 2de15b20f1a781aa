"""The plots of a report, each as an SVG in a ``data:`` address, which is sharp on paper and loads nothing.

Lines differ by dash and marker as well as by colour, so that they can be told apart in black and white.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from trainer.metrics.figures import Assessment, Change, CoveragePoint, HeatMaps, NetBenefit, UnchangedFlags
from worker.inference.metrics import CalibrationMeasures, Estimate

INK, MUTED, GRID = "#1f2933", "#66717d", "#e3e8ee"
MODEL, BEFORE, CASE = "#17559c", "#b8622b", "#a3243b"
_POLICY_MARKERS = ("o", "s", "^", "D", "v", "P")
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    # Names of groups come from other people's files, where a dollar sign begins no formula.
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
    "legend.frameon": True,
    "legend.facecolor": "white",
    "legend.edgecolor": "none",
    "legend.framealpha": 0.9,
    "legend.fontsize": 8,
    # The same report gives the same bytes.
    "svg.hashsalt": "dermq",
    "svg.fonttype": "path",
}


def roc(assessment: Assessment) -> str:
    """ROC curve with the operating points of the policies."""
    figure, axes = _figure(4.4, 4.2)
    with mpl.rc_context(_STYLE):
        curve = assessment.curves.roc
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        axes.plot(
            curve.false_positive_rate,
            curve.sensitivity,
            color=MODEL,
            linewidth=1.8,
            label=f"images, AUROC {assessment.images.auroc.or_nan:.3f}",
        )
        for number, (name, policy) in enumerate(assessment.images.policies.items()):
            _mark(axes, 1 - policy.specificity.or_nan, policy.sensitivity.or_nan, number, name)
        _square(axes, "1 - specificity", "Sensitivity")
        axes.legend(loc="lower right")
    return _address(figure)


def precision_recall(assessment: Assessment) -> str:
    """Precision-recall curve with the share of melanomas as the line of chance."""
    figure, axes = _figure(4.4, 4.2)
    with mpl.rc_context(_STYLE):
        curve = assessment.curves.pr
        images = assessment.counts.images
        chance = images.melanoma / (images.melanoma + images.nevus)
        axes.axhline(chance, color=MUTED, linewidth=1, linestyle=(0, (2, 3)), label=f"chance, {chance:.3f}")
        axes.plot(
            curve.recall,
            curve.precision,
            color=MODEL,
            linewidth=1.8,
            label=f"images, AUPRC {assessment.images.auprc.or_nan:.3f}",
        )
        for number, (name, policy) in enumerate(assessment.images.policies.items()):
            if not policy.flagged:
                continue
            precision = (images.melanoma - policy.missed) / policy.flagged
            _mark(axes, policy.sensitivity.or_nan, precision, number, name)
        _square(axes, "Sensitivity (recall)", "PPV (precision) at the share of these images")
        axes.legend(loc="lower left")
    return _address(figure)


def reliability(before: CalibrationMeasures, after: CalibrationMeasures, names: tuple[str, str]) -> str:
    """Reliability curves of two sets of probabilities."""
    figure, axes = _figure(4.4, 4.2)
    with mpl.rc_context(_STYLE):
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (2, 3)), label="perfect")
        for part, name, colour, marker, dash in (
            (before, names[0], BEFORE, "s", (0, (4, 2))),
            (after, names[1], MODEL, "o", "-"),
        ):
            axes.plot(
                [entry.predicted for entry in part.bins],
                [entry.observed for entry in part.bins],
                color=colour,
                marker=marker,
                markersize=4.5,
                linewidth=1.6,
                linestyle=dash,
                # Whole at the very edge, where a share is 0 or 1.
                clip_on=False,
                label=f"{name}, ECE {part.ece.or_nan:.3f}",
            )
        _square(axes, "Predicted probability", "Observed share of melanomas")
        axes.legend(loc="best")
    return _address(figure)


def decision_curve(rows: Sequence[NetBenefit]) -> str:
    """Net benefit of the model, of referring everyone and of referring no one."""
    figure, axes = _figure(4.4, 4.2)
    with mpl.rc_context(_STYLE):
        thresholds = [row.threshold for row in rows]
        axes.fill_between(
            thresholds,
            [_end(row.model, "low") for row in rows],
            [_end(row.model, "high") for row in rows],
            color=MODEL,
            alpha=0.14,
            linewidth=0,
        )
        axes.plot(thresholds, [row.model.or_nan for row in rows], color=MODEL, linewidth=1.8, label="model")
        axes.plot(
            thresholds,
            [row.refer_all for row in rows],
            color=BEFORE,
            linewidth=1.4,
            linestyle=(0, (4, 2)),
            label="refer everyone",
        )
        axes.axhline(0, color=MUTED, linewidth=1.2, linestyle=(0, (2, 3)), label="refer no one")
        top = max(0.01, *(_end(row.model, "high") for row in rows))
        axes.set_ylim(-0.25 * top, 1.08 * top)
        axes.set_xlim(0, 0.5)
        axes.set_xlabel("Probability at which one would refer")
        axes.set_ylabel("Net benefit (melanomas per image)")
        axes.legend(loc="upper right")
    return _address(figure)


def coverage(points: Sequence[CoveragePoint]) -> str:
    """Sensitivity, specificity and risk among the images that keep their flag."""
    figure, axes = _figure(5.4, 3.6)
    with mpl.rc_context(_STYLE):
        covered = [100 * point.coverage for point in points]
        for name, label, colour, marker in (
            ("sensitivity", "sensitivity", CASE, "o"),
            ("specificity", "specificity", MODEL, "s"),
            ("risk", "flagged wrongly", BEFORE, "^"),
        ):
            values = [float("nan") if (share := getattr(point, name)) is None else share for point in points]
            axes.plot(covered, values, color=colour, marker=marker, markersize=4, linewidth=1.6, label=label)
        axes.set_xlim(101.5, 48.5)
        axes.set_ylim(0, 1.02)
        axes.set_xlabel("Images that keep their flag, %")
        axes.set_ylabel("Share")
        axes.legend(loc="best")
    return _address(figure)


def forest(groups: Sequence[tuple[str, Estimate | None]], overall: float, label: str) -> str:
    """Estimates with intervals, one line a group, beside the overall figure.

    Args:
        groups: name and estimate. A name without an estimate is a heading.
        overall: the figure of all images.
        label: of the axis.
    """
    height = 0.6 + 0.235 * len(groups)
    figure, axes = _figure(7.2, height)
    with mpl.rc_context(_STYLE):
        axes.axvline(overall, color=MUTED, linewidth=1, linestyle=(0, (2, 3)))
        least = 1.0
        for place, (name, estimate) in enumerate(groups):
            y = -place
            if estimate is None or estimate.value is None:
                axes.text(
                    -0.02, y, name, transform=axes.get_yaxis_transform(), ha="right", va="center", fontweight="bold"
                )
                continue
            axes.text(-0.02, y, name, transform=axes.get_yaxis_transform(), ha="right", va="center", color=INK)
            low, high = _end(estimate, "low"), _end(estimate, "high")
            least = min(least, low)
            axes.plot([low, high], [y, y], color=MODEL, linewidth=1.5, solid_capstyle="butt")
            axes.plot(estimate.value, y, "s", color=MODEL, markersize=5)
        axes.set_yticks([])
        axes.spines.left.set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.set_ylim(-len(groups) + 0.4, 0.6)
        axes.set_xlim(max(0.0, min(0.9, least - 0.03)), 1.005)
        axes.set_xlabel(label)
    return _address(figure)


def robustness(changes: Sequence[Change], unchanged: UnchangedFlags, policy: str) -> str:
    """Sensitivity and specificity at a policy under each change, from weak to strong.

    Args:
        changes: as `trainer.evaluation.robustness.measure_robustness` gives them.
        unchanged: figures without a change.
        policy: name of the policy.
    """
    figure, axes = _figure(7.2, 3.6)
    with mpl.rc_context(_STYLE):
        names = list(dict.fromkeys(change.name for change in changes))
        for share, colour, marker, aside in (("sensitivity", CASE, "o", -0.04), ("specificity", MODEL, "s", 0.04)):
            axes.axhline(getattr(unchanged, share).value, color=colour, linewidth=1, linestyle=(0, (2, 3)))
            for place, name in enumerate(names):
                of_name = [change for change in changes if change.name == name]
                estimates = [getattr(change.policies[policy], share) for change in of_name]
                x = [place + aside + 0.26 * (step - (len(of_name) - 1) / 2) for step in range(len(of_name))]
                axes.plot(x, [estimate.value for estimate in estimates], color=colour, linewidth=0.8, alpha=0.6)
                for at, estimate in zip(x, estimates, strict=True):
                    axes.plot([at, at], [_end(estimate, "low"), _end(estimate, "high")], color=colour, linewidth=1.4)
                    label = share if place == 0 and at == x[0] else None
                    axes.plot(at, estimate.value, marker, color=colour, markersize=4.5, linestyle="", label=label)
        axes.set_xticks(range(len(names)), names)
        axes.tick_params(axis="x", length=0, labelcolor=INK)
        axes.grid(axis="x", visible=False)
        axes.set_ylabel("Share")
        axes.set_ylim(0, 1.02)
        axes.legend(loc="lower right", ncols=2)
    return _address(figure)


def heat_maps(found: HeatMaps) -> str:
    """Deletion and insertion curves, by maps and by chance."""
    figure, axes = _figure(5.6, 3.6)
    with mpl.rc_context(_STYLE):
        for name, curves, colour, marker in (
            ("deletion", found.deletion, CASE, "o"),
            ("insertion", found.insertion, MODEL, "s"),
        ):
            axes.plot(
                found.shares, curves.by_map, f"{marker}-", color=colour, markersize=4, label=f"{name} by heat map"
            )
            axes.plot(found.shares, curves.by_chance, "--", color=colour, linewidth=1.2, label=f"{name} by chance")
        axes.set_xlabel("Share of the picture that was changed")
        axes.set_ylabel("Mean probability")
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(0, None)
        axes.legend(loc="best")
    return _address(figure)


def _end(estimate: Estimate, name: str) -> float:
    """An end of an interval. The estimate itself if it has no interval."""
    end: float | None = getattr(estimate, name)
    return estimate.or_nan if end is None else end


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        return figure, figure.add_subplot()


def _mark(axes: Axes, x: float, y: float, number: int, name: str) -> None:
    """The operating point of a policy. Later policies have smaller markers, so that both are seen at one place."""
    axes.plot(
        x,
        y,
        _POLICY_MARKERS[number % len(_POLICY_MARKERS)],
        color=CASE,
        markersize=max(10.0 - 1.6 * number, 4.0),
        markeredgecolor="white",
        clip_on=False,
        label=name,
        zorder=5 + number,
    )


def _square(axes: Axes, horizontal: str, vertical: str) -> None:
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel(horizontal)
    axes.set_ylabel(vertical)


def _address(figure: Figure) -> str:
    with mpl.rc_context(_STYLE):
        written = io.BytesIO()
        FigureCanvasSVG(figure)
        figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    return "data:image/svg+xml;base64," + base64.b64encode(written.getvalue()).decode()
