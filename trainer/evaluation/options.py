"""What an evaluation does beside the figures themselves."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """Choices of the person who evaluates. An evaluation of a bundle, or on other images, takes no notice of the runs.

    Args:
        cache: folder of thumbnails for the near-duplicate check.
        skip_robustness: leave out robustness and the other diagnoses.
        pictures: put pictures of the missed melanomas into ``report.html``.
        seed_runs: evaluated runs of the same recipe with other seeds.
        left_out_runs: runs that were trained without a source.
        remarks: sentences for the reader, about what the run folder does not tell.
        bundle: the run's bundle, to compare with. Without one the model is converted for the comparison.
        say: called with a line about each step, for the person who waits.
    """

    cache: Path = Path(".cache/dermq")
    skip_robustness: bool = False
    pictures: bool = True
    seed_runs: Sequence[Path] = ()
    left_out_runs: Sequence[Path] = ()
    remarks: Sequence[str] = ()
    bundle: Path | None = None
    say: Callable[[str], None] = lambda line: None
