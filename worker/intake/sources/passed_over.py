"""What lies in an archive's folders and is no part of the archive, by name."""

import os
import re
from collections.abc import Container
from dataclasses import dataclass, field
from enum import Enum, auto
from fnmatch import fnmatchcase

from worker.images.dicom_header import dicom_is_installed
from worker.images.formats import DICOM_INDEX, DICOM_SUFFIXES, IMAGE_SUFFIXES, UNREAD_SUFFIXES
from worker.intake.scan_report import ScanReport
from worker.terminal import printable

#: Folders of storage servers and systems: thumbnails, snapshots, trash. Keys in lower case, as the systems ignore case.
#: A folder that is simply called ``snapshot`` or ``recycle`` is somebody's own.
_SYSTEM_FOLDERS = {
    name.lower(): name
    for name in (
        "@eaDir", "#recycle", "#snapshot", "@tmp", "@sharebin", "@Recycle", "@Recently-Snapshot", ".@__thumb",
        "~snapshot", ".snapshot", ".snapshots", ".zfs", "lost+found", "$RECYCLE.BIN", "System Volume Information",
        "__MACOSX", ".Trash", ".Trashes", ".Spotlight-V100", ".fseventsd", ".TemporaryItems", ".DocumentRevisions-V100",
        ".thumbnails", ".recycle", "RECYCLER",
    )
}  # fmt: skip
_SYSTEM_FILES = {
    name.lower(): name
    for name in ("Thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", ".DS_Store", "Icon\r", ".picasa.ini")
}
#: Files by the beginning or the end of their names.
_SYSTEM_PATTERNS = {
    "._*": re.compile(r"\._."),
    ".Trash-*": re.compile(r"\.trash-.", re.IGNORECASE),
    ".nfs*": re.compile(r"\.nfs[0-9a-f]{8,}"),
    "SYNOPHOTO_*": re.compile(r"SYNO(PHOTO|VIDEO|INDEX|FILE)_"),
    "@SynoEAStream": re.compile(r".*@Syno(EAStream|Resource)$"),
    "~$*": re.compile(r"~\$."),
}
#: Pictures that are drawn over an image: superpixels, masks, segmentations, and maps of an attribute, as ISIC's
#: challenges name them. Of other names only beside the image itself.
_DRAWN = re.compile(
    r"(?P<image>.+?)_(?:superpixels|segmentation|segmentation_mask|mask|seg|lesion_mask|groundtruth"
    r"|attribute_[a-z_]+)\.[a-z]+$",
    re.IGNORECASE,
)
_ISIC = re.compile(r"ISIC_\d{7}$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which entries of a source are taken.

    Args:
        exclude: patterns of names or of paths from the root, such as ``*_overview.jpg`` or ``2003/*``. A folder that
            fits is not entered.
        include_hidden: take hidden files and folders, too.
        strict: record a picture that is not read, such as a HEIC file, as an image, which fails; otherwise it is
            counted and passed over.
    """

    exclude: tuple[str, ...] = ()
    include_hidden: bool = False
    strict: bool = False
    #: Patterns that fitted something so far.
    fitted: set[str] = field(default_factory=set, compare=False, repr=False)

    def excludes(self, path: str) -> bool:
        """Whether a pattern fits a path or its last part."""
        if not self.exclude:
            return False
        # Archives write paths with a leading ./, and people folders with a slash at the end.
        path = path.removeprefix("./")
        name, excluded = path.rpartition("/")[2], False
        for pattern in self.exclude:
            plain = pattern.removeprefix("./").removeprefix("/").rstrip("/")
            if fnmatchcase(path, plain) or fnmatchcase(name, plain):
                self.fitted.add(pattern)
                excluded = True
        return excluded

    def notes(self) -> list[str]:
        """Of patterns that fitted nothing: a misspelt one leaves out nothing."""
        return [f"WARNING: --exclude {printable(p)} fits nothing." for p in self.exclude if p not in self.fitted]


class Kind(Enum):
    """What happens to an entry of a source."""

    IMAGE = auto()
    #: By its suffix, or perhaps: without one, or with a number as at the end of an identifier.
    DICOM = auto()
    PERHAPS_DICOM = auto()
    #: The report counts it.
    PASSED_OVER = auto()


def kind_of_path(path: str, beside: Container[str], report: ScanReport, selection: Selection) -> Kind:
    """What a file is by its path from the root, for sources that list whole paths. Counts it where it is passed over.

    Args:
        path: with forward slashes.
        beside: stems of the files of the same folder, in lower case.
        report: counts what is passed over.
        selection: what is taken.
    """
    parts = path.split("/")
    for number, part in enumerate(parts, 1):
        if selection.excludes("/".join(parts[:number])):
            report.excluded += 1
            return Kind.PASSED_OVER
        if (system := system_name(part)) is not None:
            report.system[system] += 1
            return Kind.PASSED_OVER
        if part.startswith(".") and part not in (".", "..") and not selection.include_hidden:
            report.hidden += 1
            return Kind.PASSED_OVER
    return kind_of_name(parts[-1], beside, report, selection)


def kind_of_name(name: str, beside: Container[str], report: ScanReport, selection: Selection) -> Kind:
    """What a file is by its name alone, as `kind_of_path`."""
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    if suffix in IMAGE_SUFFIXES:
        if not is_drawn_over(name, beside):
            return Kind.IMAGE
        report.drawn += 1
    elif suffix in UNREAD_SUFFIXES:
        if selection.strict:
            return Kind.IMAGE
        report.count_unread(suffix)
    elif name.upper() == DICOM_INDEX:
        report.system[DICOM_INDEX] += 1
    elif suffix in DICOM_SUFFIXES:
        return kind_of_dicom(report, selection)
    elif not suffix or suffix[1:].isdecimal():
        return Kind.PERHAPS_DICOM
    else:
        report.count_other(suffix)
    return Kind.PASSED_OVER


def kind_of_dicom(report: ScanReport, selection: Selection) -> Kind:
    """What happens to a DICOM file. Counts it where it is passed over."""
    if dicom_is_installed():
        return Kind.DICOM
    if selection.strict:
        return Kind.IMAGE
    report.dicom += 1
    return Kind.PASSED_OVER


def system_name(name: str) -> str | None:
    """What kind of file or folder of a system has this name. None for all others."""
    lower = name.lower()
    if (found := _SYSTEM_FOLDERS.get(lower) or _SYSTEM_FILES.get(lower)) is not None:
        return found.strip()
    return next((kind for kind, pattern in _SYSTEM_PATTERNS.items() if pattern.match(name)), None)


def is_drawn_over(name: str, beside: Container[str]) -> bool:
    """Whether a file is a mask or superpixels of an image, by its name.

    Args:
        name: of the file.
        beside: stems of the files of the same folder, in lower case.
    """
    found = _DRAWN.match(name)
    if found is None:
        return False
    image = found["image"]
    return _ISIC.match(image) is not None or image.lower() in beside
