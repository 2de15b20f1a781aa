"""The columns of a manifest: dermq's own, those of ISIC's and HAM10000's metadata, and those that a person maps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from worker.errors import ManifestError
from worker.tables import repeated_names
from worker.terminal import printable

#: What a manifest tells of an image, and other names of the column, in the order in which they are looked for.
COLUMNS = {
    "path": (
        "path", "file", "filename", "file_name", "filepath", "image_path", "image_id", "isic_id", "image_name", "image",
    ),
    "lesion_id": ("lesion_id",),
    "patient_ref": ("patient_ref", "patient_id"),
    "age": ("age", "age_approx"),
    "sex": ("sex", "gender"),
    "site": ("site", "localization", "anatom_site_general", "anatom_site_general_challenge", "anatom_site"),
}  # fmt: skip
#: Columns whose cells are identifiers, and no paths: the file is the one image of that name.
IDENTIFIERS = ("image_id", "isic_id", "image_name", "image")
#: Characters of a column name, and columns, that a message shows.
_SHOWN_CHARACTERS, _SHOWN_COLUMNS = 40, 7


@dataclass(frozen=True, kw_only=True)
class ColumnPlan:
    """Where each value of an image stands in a row.

    Args:
        places: number of the column by `COLUMNS`' keys.
        names: name of the column by the same keys, where it is another.
        unread: names of columns that are not read.
        by_identifier: whether the path is an identifier.
    """

    places: Mapping[str, int]
    names: Mapping[str, str]
    unread: tuple[str, ...]
    by_identifier: bool

    def notes(self) -> list[str]:
        """What the submitter should know, one line each."""
        notes = []
        if self.names:
            read = ", ".join(f"{ours} from {shortened(theirs)}" for ours, theirs in self.names.items())
            notes.append(f"Columns read: {read}.")
        if self.unread:
            notes.append(f"Columns not read: {listed(self.unread)}. To read one, name it with --column.")
        return notes


def plan_columns(manifest: str, names: Sequence[str], mapped: Mapping[str, str]) -> ColumnPlan:
    """Find the columns of a manifest.

    Args:
        manifest: its path, for messages.
        names: of its columns, in lower case. Blank ones are passed over.
        mapped: name of the column by `COLUMNS`' keys, as a person gave it.

    Raises:
        ManifestError: there is no path, a column that is read occurs twice, or a mapped one is missing.
    """
    repeated = set(repeated_names([name for name in names if name]))
    chosen: dict[str, str] = {}
    for ours, known in COLUMNS.items():
        if ours in mapped:
            theirs = mapped[ours].strip().lower()
            if theirs not in names:
                raise ManifestError(
                    f"{manifest} has no column {shortened(theirs)}, which --column names. It has {listed(names)}."
                )
            chosen[ours] = theirs
        elif (
            found := next((name for name in known if name in names and name not in chosen.values()), None)
        ) is not None:
            chosen[ours] = found
    twice = sorted(repeated & set(chosen.values()))
    if "path" not in chosen or twice:
        problems = [
            *(["the column path is missing"] if "path" not in chosen else []),
            *(f"{shortened(name)!r} occurs twice" for name in twice),
        ]
        raise ManifestError(
            f"{manifest} has the columns {listed(names)}: {', '.join(problems)}. Read are path, and optionally "
            f"{', '.join(list(COLUMNS)[1:])}. If the path has another name: --column path=NAME."
        )
    return ColumnPlan(
        places={ours: names.index(theirs) for ours, theirs in chosen.items()},
        names={ours: theirs for ours, theirs in chosen.items() if ours != theirs},
        unread=tuple(name for name in names if name and name not in chosen.values()),
        by_identifier=chosen["path"] in IDENTIFIERS,
    )


def shortened(name: str) -> str:
    """The beginning of a column's name, for a message."""
    name = printable(name)
    return name if len(name) <= _SHOWN_CHARACTERS else f"{name[:_SHOWN_CHARACTERS]}…"


def listed(names: Sequence[str]) -> str:
    """The first columns, for a message."""
    rest = f" and {len(names) - _SHOWN_COLUMNS} more" if len(names) > _SHOWN_COLUMNS else ""
    return ", ".join(map(shortened, names[:_SHOWN_COLUMNS])) + rest
