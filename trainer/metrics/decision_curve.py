"""Net benefit: is acting on the model better than referring everyone, or no one?

Vickers & Elkin, "Decision curve analysis: a novel method for evaluating prediction models", Medical Decision Making
26:565 (2006).
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

#: Probabilities at which a reader may be willing to refer: from 1 in 100 to 1 in 2.
THRESHOLD_PROBABILITIES = tuple(round(0.01 * step, 2) for step in range(1, 51))


def net_benefit(labels: Labels, flagged: npt.NDArray[np.bool_], threshold: float, weights: Floats) -> Floats:
    """Net benefit of a rule: true positives minus false positives at the rate of exchange that a threshold implies.

    TP / n - FP / n * t / (1 - t). Who refers at a probability of t holds one melanoma found to be worth (1 - t) / t
    needless referrals.

    Args:
        labels: (n,), 1 for melanoma and 0 for nevus.
        flagged: (n,), what the rule refers: ``probability >= threshold`` for the model, all true to refer everyone.
        threshold: t, at least 0 and below 1.
        weights: (resamples, n).

    Returns:
        (resamples,), in melanomas found per image, net of the needless referrals.

    Example:
        Of 100 images 20 are melanomas; the rule refers 18 of them and 30 nevi. At t = 0.1 the net benefit is
        0.18 - 0.30 / 9 = 0.1467; referring everyone gives 0.20 - 0.80 / 9 = 0.1111.
    """
    total = weights.sum(axis=1)
    found = weights @ (flagged & (labels == 1))
    alarms = weights @ (flagged & (labels == 0))
    benefit: Floats = (found - alarms * threshold / (1 - threshold)) / total
    return benefit
