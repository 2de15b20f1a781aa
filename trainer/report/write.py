"""Write the two files of a report."""

from pathlib import Path

import jinja2

from trainer.data.load_images import picture
from trainer.report.document import Document
from trainer.report.schema import Report
from trainer.report.sections import document
from worker.atomic_files import write_text

_TEMPLATES = Path(__file__).parent / "templates"


def write_report(report: Report, folder: Path, images: dict[str, Path]) -> None:
    """Write ``report.json`` and ``report.html``.

    Args:
        report: the figures.
        folder: to write into. It is the run's and not part of a bundle.
        images: file of each image by its name, for the pictures of missed melanomas. Empty for a report without.
    """
    write_text(folder / "report.json", report.model_dump_json(indent=1) + "\n")
    missed = [entry.image_id for entry in report.missed if entry.image_id in images]
    pictures = {name: picture(images[name]) for name in missed}
    write_text(folder / "report.html", render(document(report, pictures)))


def _together(cell: str) -> str:
    """A cell whose lines break only between a figure and its interval."""
    for joint in (" to ", " / ", " of ", " †"):
        cell = cell.replace(joint, joint.replace(" ", "\N{NO-BREAK SPACE}"))
    return cell


def render(page: Document) -> str:
    """One HTML page with its style and images inside. It loads nothing."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["together"] = _together
    return environment.get_template("report.html.j2").render(page=page)
