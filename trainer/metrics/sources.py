"""Figures by source, of a run that was trained on several data sets."""

from collections.abc import Sequence

import pandas as pd

from trainer.config import fold_sources
from trainer.data.counts import count_classes
from trainer.data.diagnoses import melanoma_or_nevus
from trainer.data.readers.ham10000 import NAME as HAM10000
from trainer.data.splits import TRAIN
from trainer.metrics.figures import SourceFigures
from trainer.metrics.subgroups import describe
from trainer.thresholds.policies import BOOTSTRAP_SEED
from worker.inference.metrics import SourceMetrics


def first_data_set(scored: pd.DataFrame) -> pd.DataFrame:
    """The rows of the first data set: HAM10000 where it is there, else all.

    The main figures of a report are of one data set: an area under the ROC curve over several also compares melanomas
    of one clinic with nevi of another.

    Args:
        scored: rows with ``label`` and ``collection``.
    """
    own = scored[scored["collection"] == HAM10000]
    return own.reset_index(drop=True) if own["label"].nunique() == 2 else scored


def describe_sources(
    everything: pd.DataFrame, scored: pd.DataFrame, thresholds: dict[str, float], folds: Sequence[str] = ()
) -> tuple[SourceFigures, ...]:
    """Figures of each source, and of sources that were held out together. Empty for a single data set.

    Args:
        everything: rows of the data sets, with ``split``.
        scored: the test images among them, with ``label``, ``lesion_id`` and calibrated ``probability``.
        thresholds: by policy.
        folds: of the runs that the run was cross-fitted with; one may hold several sources out.
    """
    if everything["collection"].nunique() < 2:
        return ()
    groups: list[tuple[str, ...]] = [(source,) for source in sorted(everything["dataset"].unique())]
    groups += [sources for fold in folds if len(sources := fold_sources(fold)) > 1]
    found = []
    for sources in groups:
        rows = everything[everything["dataset"].isin(sources)]
        part = scored[scored["dataset"].isin(sources)].reset_index(drop=True)
        if not len(part):
            continue
        found.append(
            SourceFigures(
                source=" + ".join(sources),
                collection=_named(rows["collection"]),
                licence=_named(rows["licence"]),
                geometry=_named(rows["geometry"]),
                trained=count_classes(melanoma_or_nevus(rows[rows["split"] == TRAIN])).images,
                **dict(describe(part, thresholds, seed=BOOTSTRAP_SEED)),
            )
        )
    return tuple(found)


def source_metrics(sources: Sequence[SourceFigures]) -> dict[str, SourceMetrics]:
    """The figures that a bundle carries."""
    return {
        each.source: SourceMetrics(images=each.images, lesions=each.lesions, auroc=each.auroc, policies=each.policies)
        for each in sources
    }


def _named(values: "pd.Series[str]") -> str:
    return ", ".join(sorted({str(value) for value in values} - {""}))
