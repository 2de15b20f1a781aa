"""Heat maps: whether the probability falls where a map says that it comes from."""

from trainer.report import plots
from trainer.report.document import Paragraph, Plot, Plots, Section, interval
from trainer.report.schema import Report


def heat_maps(report: Report) -> Section | None:
    """Deletion and insertion curves on flagged melanomas. None where they were not measured."""
    found = report.heat_maps
    if found is None:
        return None
    deletion, insertion = (each.area_difference for each in (found.deletion, found.insertion))
    by_deletion = "clearly better than" if _clear(deletion.high, -1) else "not clearly better than"
    by_insertion = "clearly better than" if _clear(insertion.low, 1) else "not clearly better than"
    return Section(
        name="heat-maps",
        title="Heat maps",
        blocks=(
            Paragraph(
                text=f"On {found.images} flagged melanoma images, the places that a map shows were blurred first "
                "(deletion), or made sharp first in a blurred picture (insertion); then the picture was scored again. "
                f"Maps of chance did the same. The area under the curve differs by {interval(deletion)} in deletion, "
                f"where less is better: the maps are {by_deletion} chance. It differs by {interval(insertion)} in "
                f"insertion, where more is better: they are {by_insertion} chance. {found.empty} of the images have an "
                "empty map: no place speaks for melanoma by itself. This tells whether a map fits the model, not "
                "whether the model looks at the right thing."
            ),
            Plots(
                plots=(
                    Plot(
                        source=plots.heat_maps(found),
                        alternative=f"Mean probability while the picture is changed. Difference of the areas: deletion "
                        f"{interval(deletion)}, insertion {interval(insertion)}.",
                        caption="Mean calibrated probability by the share of the picture that was changed.",
                    ),
                )
            ),
        ),
    )


def _clear(end: float | None, sign: int) -> bool:
    return end is not None and end * sign > 0
