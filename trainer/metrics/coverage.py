"""Coverage and risk: what is gained by leaving the least certain images to a human without a flag.

Geifman & El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from worker.inference.bundle import logit

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

#: Shares of images that keep their flag.
COVERAGES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5)


@dataclass(frozen=True, kw_only=True)
class CoverageRisk:
    """What holds among the images that keep their flag.

    Args:
        coverage: their share.
        images: their number.
        risk: share of them that is classified wrongly, flagged or not.
        sensitivity: among their melanomas; not a number when there is none.
        specificity: among their nevi; not a number when there is none.
        missed: melanomas among them that are not flagged.
    """

    coverage: float
    images: int
    risk: float
    sensitivity: float
    specificity: float
    missed: int


def certainty(probabilities: Floats, threshold: float) -> Floats:
    """Distance from the threshold in log-odds: how far an image is from the other flag.

    Args:
        probabilities: (n,), calibrated.
        threshold: of the policy.

    Returns:
        (n,), at least 0.
    """
    return np.abs(np.array([logit(value) for value in probabilities]) - logit(threshold))


def coverage_risk(labels: Labels, probabilities: Floats, threshold: float) -> list[CoverageRisk]:
    """Risk at each of `COVERAGES`: the most certain images keep their flag, the others go to a human.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        probabilities: (n,), calibrated.
        threshold: of the policy.

    Returns:
        One entry a coverage, from all images down.
    """
    order = np.argsort(-certainty(probabilities, threshold), kind="stable")
    called = probabilities >= threshold
    points = []
    for coverage in COVERAGES:
        kept = order[: max(1, round(coverage * len(order)))]
        melanoma = labels[kept] == 1
        points.append(
            CoverageRisk(
                coverage=coverage,
                images=len(kept),
                risk=float((called[kept] != melanoma).mean()),
                sensitivity=float(called[kept][melanoma].mean()) if melanoma.any() else float("nan"),
                specificity=float((~called[kept][~melanoma]).mean()) if (~melanoma).any() else float("nan"),
                missed=int((~called[kept] & melanoma).sum()),
            )
        )
    return points
