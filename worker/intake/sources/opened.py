"""Opening a source of any kind: which reader takes it, and what is recorded of it with the job."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from db.submission import NewImage
from worker.errors import ManifestError
from worker.images.read import path_to_text
from worker.images.read_dicomweb import DICOMWEB
from worker.images.read_remote import is_remote
from worker.intake.scan_report import ScanReport
from worker.intake.sources.archive import list_archive
from worker.intake.sources.dicomweb import list_pacs, shown_search
from worker.intake.sources.folder import walk_folder
from worker.intake.sources.manifest import ManifestReport, read_manifest
from worker.intake.sources.passed_over import Selection
from worker.intake.sources.remote import list_store
from worker.intake.sources.tables import is_archive


@dataclass(frozen=True, kw_only=True)
class OpenedSource:
    """A source whose images are about to be read.

    Args:
        images: streamed.
        root: that the images' paths start from, as the database stores it.
        manifest: the manifest, as the database stores it. None for any other source.
        paths_from: folder that a manifest's paths are relative to. None for any other source.
        scan: filled with what is passed over, while the images are streamed.
        rows: filled with what is noticed in a manifest. None for any other source.
        nothing: what to say where there is no image.
    """

    images: Iterator[NewImage]
    root: str
    nothing: str
    manifest: str | None = None
    paths_from: Path | None = None
    scan: ScanReport = field(default_factory=ScanReport)
    rows: ManifestReport | None = None

    def passed_over(self) -> dict[str, int]:
        """What the source holds and was not submitted, by kind."""
        rows: dict[str, int] = {}
        if self.rows is not None:
            rows = {f"rows {kind}": number for kind, number in self.rows.not_submitted_by_kind().items()}
            rows |= {"excluded": self.rows.excluded} if self.rows.excluded else {}
        return {**rows, **self.scan.passed_over()}


def open_source(
    source: Path | str, root: Path | None, selection: Selection, columns: Mapping[str, str] | None = None
) -> OpenedSource:
    """Open a folder, a manifest, a ZIP or TAR archive, or a remote store.

    Args:
        source: as the submitter gave it.
        root: folder that a manifest's paths are relative to. None: the manifest's own.
        selection: what is taken.
        columns: of a manifest, by dermq's own names.

    Raises:
        ManifestError: it cannot be read, or an option does not fit it.
    """
    scan = ScanReport()
    if isinstance(source, str) and source.startswith(DICOMWEB):
        _refuse_options(source, "a PACS", root, columns)
        return OpenedSource(
            images=list_pacs(source, scan, selection),
            root=source.partition("?")[0],
            # The search stands for a manifest: it says which images of the PACS are meant.
            manifest=shown_search(source),
            scan=scan,
            nothing=f"No image found in {shown_search(source) or source}.",
        )
    if isinstance(source, str) and is_remote(source):
        _refuse_options(source, "an address", root, columns)
        return OpenedSource(
            images=list_store(source, scan, selection),
            root=source.rstrip("/"),
            scan=scan,
            nothing=f"No image found below {source}.",
        )
    # Not resolved: a symbolic link keeps the name that the operator gave.
    source = Path(os.path.abspath(source))  # noqa: PTH100 - `absolute` keeps ".."
    if is_archive(source):
        _refuse_options(str(source), "an archive", root, columns)
        return OpenedSource(
            images=list_archive(source, scan, selection),
            root=path_to_text(str(source)),
            scan=scan,
            nothing=f"No image found in {source}.",
        )
    if source.is_dir():
        _refuse_options(str(source), "a folder", root, columns)
        return OpenedSource(
            images=walk_folder(source, scan, selection),
            root=path_to_text(str(source)),
            scan=scan,
            nothing=f"No image found in {source}. Give a folder with .jpg, .png, .tif, .bmp or .webp files at any "
            "depth, or a manifest.",
        )
    root = Path(os.path.abspath(root or source.parent))  # noqa: PTH100
    rows = ManifestReport()
    return OpenedSource(
        images=read_manifest(source, root, rows, columns=columns, selection=selection),
        root=path_to_text(str(root)),
        manifest=path_to_text(str(source)),
        paths_from=root,
        rows=rows,
        nothing=f"{source} has a header but no rows. Write a row for each image.",
    )


def _refuse_options(source: str, what: str, root: Path | None, columns: Mapping[str, str] | None) -> None:
    if root is not None or columns:
        option = "--root" if root is not None else "--column"
        raise ManifestError(
            f"{option} belongs to a manifest, but {source} is {what}, and its paths start from itself. "
            f"Leave out {option}."
        )
