"""The scan report: what a search of a source passed over, counted by kind. It is kept with the job."""

from collections import Counter
from dataclasses import dataclass, field

from worker.terminal import printable

#: Suffixes that are counted separately. An archive may hold a million, such as numbers behind a dot.
_MAX_SUFFIXES = 100
#: Longest suffix in characters. A longer one is a part of the name.
_MAX_SUFFIX_LENGTH = 12
#: Suffixes and folders that a message names.
_NAMED_KINDS, _NAMED_FOLDERS = 8, 5
#: Stands for suffixes that are not counted separately.
_OTHER = "with other suffixes"
#: What to do with DICOM files.
DICOM_ADVICE = "Install DICOM support (pip install 'dermq[dicom]'), or export the images as PNG or JPEG."
_UNREAD_ADVICE = "Convert them to JPEG or PNG. With --strict they become images of the job, which fail."


@dataclass(kw_only=True)
class ScanReport:
    """What a search of a source passed over. The search fills it."""

    #: Other files, by suffix.
    others: Counter[str] = field(default_factory=Counter)
    #: Pictures of formats that are not read, by suffix or by what they are.
    unread: Counter[str] = field(default_factory=Counter)
    #: Files and folders of systems and storage servers, by name.
    system: Counter[str] = field(default_factory=Counter)
    #: DICOM files, by name or by content, where DICOM support is not installed.
    dicom: int = 0
    #: Masks, superpixels and segmentations beside images.
    drawn: int = 0
    #: Files and folders that a pattern of ``--exclude`` fits.
    excluded: int = 0
    #: Hidden files and folders, whose names begin with a dot.
    hidden: int = 0
    #: Members of an archive that a later one of the same name hides.
    repeated: int = 0
    #: Symbolic links to folders, which are not followed.
    linked_folders: int = 0
    #: Folders that could not be read, and entries whose kind is unknown.
    unreadable: list[str] = field(default_factory=list)

    def count_other(self, suffix: str) -> None:
        """Count a file that is not an image."""
        _count(self.others, suffix)

    def count_unread(self, kind: str) -> None:
        """Count a picture of a format that is not read."""
        _count(self.unread, kind)

    def passed_over(self) -> dict[str, int]:
        """Everything by kind: ``{"hidden": 3, "system: @eaDir": 12, "unread: .heic": 5, "other files": 9}``."""
        counts = {
            **{f"unread: {printable(kind)}": count for kind, count in self.unread.most_common()},
            "DICOM": self.dicom,
            "unreadable": len(self.unreadable),
            "linked folders": self.linked_folders,
            "masks": self.drawn,
            "repeated names": self.repeated,
            "excluded": self.excluded,
            "hidden": self.hidden,
            **{f"system: {kind}": count for kind, count in self.system.most_common()},
            # Without the suffixes, which may be parts of names: this is shown in Flower.
            "other files": self.others.total(),
        }
        return {kind: count for kind, count in counts.items() if count}

    def skipped(self) -> str:
        """``14 files (9 .txt, 3 .docx, 2 without suffix)``. Empty when no file was skipped."""
        return _listed(self.others, "file")

    def notes(self) -> list[str]:
        """What the submitter should know, one line each."""
        notes = []
        if self.unreadable:
            shown = ", ".join(map(printable, self.unreadable[:_NAMED_FOLDERS]))
            rest = " …" if len(self.unreadable) > _NAMED_FOLDERS else ""
            count = _counted(len(self.unreadable), "folder")
            notes.append(f"WARNING: {count} could not be read and NOT submitted: {shown}{rest}")
        if self.dicom:
            notes.append(f"WARNING: {_counted(self.dicom, 'DICOM file')} NOT submitted. {DICOM_ADVICE}")
        if self.unread:
            notes.append(
                f"WARNING: {_listed(self.unread, 'picture')} of formats that are not read NOT submitted. "
                f"{_UNREAD_ADVICE}"
            )
        if self.repeated:
            notes.append(
                f"WARNING: {_counted(self.repeated, 'member')} NOT submitted: a later one has the same name. Pack the "
                "archive again."
            )
        if self.linked_folders:
            count = _counted(self.linked_folders, "symbolic link")
            notes.append(f"WARNING: {count} to folders not followed. Submit those folders themselves.")
        if self.drawn:
            notes.append(f"Skipped, masks and superpixels of images, by their names: {self.drawn:,}.")
        if self.excluded:
            notes.append(f"Skipped, excluded files and folders: {self.excluded:,}.")
        if others := self.skipped():
            notes.append(f"Skipped, not images: {others}.")
        if self.system:
            notes.append(f"Skipped, of systems and storage servers: {_listed(self.system, 'entry')}.")
        if self.hidden:
            notes.append(
                f"Skipped, hidden files and folders: {self.hidden:,}. With --include-hidden they are submitted."
            )
        return notes


def _count(kinds: Counter[str], kind: str) -> None:
    known = kind in kinds
    separate = known or (len(kinds) < _MAX_SUFFIXES and (len(kind) <= _MAX_SUFFIX_LENGTH or " " in kind))
    kinds[kind if separate else _OTHER] += 1


def _listed(kinds: Counter[str], noun: str) -> str:
    """``14 files (9 .txt, 3 .docx, 2 without suffix)``."""
    if not kinds:
        return ""
    total = kinds.total()
    named = kinds.most_common(_NAMED_KINDS)
    parts = [f"{count:,} {printable(kind) or 'without suffix'}" for kind, count in named]
    if rest := total - sum(count for _, count in named):
        parts.append(f"{rest:,} of other kinds")
    return f"{_counted(total, noun)} ({', '.join(parts)})"


def _counted(number: int, noun: str) -> str:
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun[:-1]}ies" if noun.endswith("y") else f"{number:,} {noun}s"
