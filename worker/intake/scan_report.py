"""What a search of a folder passed over, counted and said, whatever names the archive holds."""

from collections import Counter
from dataclasses import dataclass, field

from worker.terminal import printable

#: Different endings that are counted by themselves: an archive may hold a million, such as numbers behind a dot.
_KINDS_KEPT = 100
#: Longest ending in characters; what is longer is part of a name that has a dot in it.
_LONGEST_SUFFIX = 12
#: Endings and folders named in a message.
_KINDS_NAMED, _FOLDERS_NAMED = 8, 5
#: What takes the place of endings that are not kept.
_OTHER = "with other endings"
#: What to do with DICOM files.
NO_DICOM = "DICOM is not read by this version; export the pictures as PNG or JPEG."


@dataclass(kw_only=True)
class FolderReport:
    """What a search of a folder passed over; filled while it goes on."""

    #: Other files, by suffix.
    others: Counter[str] = field(default_factory=Counter)
    #: DICOM files, by name or by content.
    dicom: int = 0
    #: Hidden files and folders (their names begin with a dot).
    hidden: int = 0
    #: Symbolic links to folders, which are not followed.
    linked_folders: int = 0
    #: Folders that could not be read, and entries that could not be told from folders.
    unreadable: list[str] = field(default_factory=list)

    def count_other(self, suffix: str) -> None:
        """A file that is not taken for an image."""
        known = suffix in self.others
        keep = known or (len(self.others) < _KINDS_KEPT and len(suffix) <= _LONGEST_SUFFIX)
        self.others[suffix if keep else _OTHER] += 1

    def not_taken(self) -> str:
        """``14 files (9 .txt, 3 .docx, 2 without suffix)``; empty when every file was taken."""
        if not self.others:
            return ""
        total = self.others.total()
        named = self.others.most_common(_KINDS_NAMED)
        kinds = [f"{count:,} {printable(suffix) or 'without suffix'}" for suffix, count in named]
        if rest := total - sum(count for _, count in named):
            kinds.append(f"{rest:,} of other kinds")
        return f"{_counted(total, 'file')} ({', '.join(kinds)})"

    def notes(self) -> list[str]:
        """What the submitter should know, a line each."""
        notes = []
        if self.unreadable:
            shown = ", ".join(map(printable, self.unreadable[:_FOLDERS_NAMED]))
            rest = " …" if len(self.unreadable) > _FOLDERS_NAMED else ""
            notes.append(
                f"WARNING: {_counted(len(self.unreadable), 'folder')} could not be read, NOT in the job: {shown}{rest}"
            )
        if self.dicom:
            notes.append(f"WARNING: {_counted(self.dicom, 'DICOM file')}, NOT in the job. {NO_DICOM}")
        if self.linked_folders:
            notes.append(f"WARNING: not followed: {_counted(self.linked_folders, 'symbolic link')} to folders.")
        if others := self.not_taken():
            notes.append(f"Not taken for images: {others}.")
        if self.hidden:
            notes.append(f"Hidden files or folders that were passed over: {self.hidden:,}.")
        return notes


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' if number != 1 else ''}"
