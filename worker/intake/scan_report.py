"""The scan report: what a search of a folder skipped, counted by kind."""

from collections import Counter
from dataclasses import dataclass, field

from worker.terminal import printable

#: Suffixes that are counted separately. An archive may hold a million, such as numbers behind a dot.
_MAX_SUFFIXES = 100
#: Longest suffix in characters. A longer one is a part of the name.
_MAX_SUFFIX_LENGTH = 12
#: Suffixes and folders that a message names.
_NAMED_SUFFIXES, _NAMED_FOLDERS = 8, 5
#: Stands for suffixes that are not counted separately.
_OTHER = "with other suffixes"
#: What to do with DICOM files.
DICOM_ADVICE = "This version does not read DICOM. Export the images as PNG or JPEG."


@dataclass(kw_only=True)
class ScanReport:
    """What a search of a folder skipped. The search fills it."""

    #: Other files, by suffix.
    others: Counter[str] = field(default_factory=Counter)
    #: DICOM files, by name or by content.
    dicom: int = 0
    #: Hidden files and folders, whose names begin with a dot.
    hidden: int = 0
    #: Symbolic links to folders, which are not followed.
    linked_folders: int = 0
    #: Folders that could not be read, and entries whose kind is unknown.
    unreadable: list[str] = field(default_factory=list)

    def count_other(self, suffix: str) -> None:
        """Count a file that is not an image."""
        known = suffix in self.others
        separate = known or (len(self.others) < _MAX_SUFFIXES and len(suffix) <= _MAX_SUFFIX_LENGTH)
        self.others[suffix if separate else _OTHER] += 1

    def skipped(self) -> str:
        """``14 files (9 .txt, 3 .docx, 2 without suffix)``. Empty when no file was skipped."""
        if not self.others:
            return ""
        total = self.others.total()
        named = self.others.most_common(_NAMED_SUFFIXES)
        kinds = [f"{count:,} {printable(suffix) or 'without suffix'}" for suffix, count in named]
        if rest := total - sum(count for _, count in named):
            kinds.append(f"{rest:,} of other kinds")
        return f"{_counted(total, 'file')} ({', '.join(kinds)})"

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
        if self.linked_folders:
            count = _counted(self.linked_folders, "symbolic link")
            notes.append(f"WARNING: {count} to folders not followed. Submit those folders themselves.")
        if others := self.skipped():
            notes.append(f"Skipped, not images: {others}.")
        if self.hidden:
            notes.append(f"Skipped, hidden files and folders: {self.hidden:,}.")
        return notes


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
