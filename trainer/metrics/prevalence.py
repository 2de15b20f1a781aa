"""What a flag means where melanoma is rarer or commoner than in the test images: PPV, NPV and the work it makes."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

#: Shares of melanoma among the images of an archive: screening, practice, pigmented-lesion clinic, HAM10000 itself.
PREVALENCES = (0.01, 0.02, 0.05, 0.14)


def range_of_predictive_values(
    sensitivity: tuple[float, float], specificity: tuple[float, float], prevalence: float
) -> tuple[tuple[float, float], tuple[float, float], tuple[float, float]]:
    """Least and greatest PPV, NPV and referral fraction that two intervals allow.

    For where resampling cannot give them, because a rule that flags every melanoma, or no nevus, does so in every
    resample. Both ends together are rarer than 95%, so this is on the safe side.

    Args:
        sensitivity: least and greatest.
        specificity: least and greatest.
        prevalence: share of melanomas, between 0 and 1.

    Returns:
        Least and greatest of each; not a number where nothing is flagged, or everything.

    Example:
        Sensitivity 0.95 to 1 and specificity 0.7 to 0.8 at 2%: NPV from 0.686 / 0.687 = 0.9985 to 1.
    """
    ends = np.array(sensitivity), np.array(specificity)
    # PPV and NPV rise with both; more images are referred when more melanomas are caught and fewer nevi spared.
    ppv, npv, _ = predictive_values(*ends, prevalence)
    _, _, referred = predictive_values(ends[0], ends[1][::-1], prevalence)
    return tuple((float(values[0]), float(values[1])) for values in (ppv, npv, referred))  # type: ignore[return-value]


def predictive_values(sensitivity: Floats, specificity: Floats, prevalence: float) -> tuple[Floats, Floats, Floats]:
    """Bayes' theorem at a prevalence; sensitivity and specificity are taken as they are.

    Args:
        sensitivity: any shape.
        specificity: of the same shape.
        prevalence: share of melanomas, between 0 and 1.

    Returns:
        PPV, NPV and the referral fraction (share of images flagged), each of that shape; a PPV or NPV is not a number
        when nothing is flagged, or everything.

    Example:
        Sensitivity 0.9 and specificity 0.8 at 1%: 0.009 of images are flagged melanomas, 0.198 flagged nevi; PPV is
        0.009 / 0.207 = 0.0435, NPV 0.792 / 0.793 = 0.9987, and 20.7% of images are referred.
    """
    caught, missed = sensitivity * prevalence, (1 - sensitivity) * prevalence
    spared, alarms = specificity * (1 - prevalence), (1 - specificity) * (1 - prevalence)
    referred = np.asarray(caught + alarms)
    rest = np.asarray(spared + missed)
    ppv = np.divide(caught, referred, out=np.full(referred.shape, np.nan), where=referred > 0)
    npv = np.divide(spared, rest, out=np.full(rest.shape, np.nan), where=rest > 0)
    return ppv, npv, referred
