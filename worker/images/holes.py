"""Holes: sectors of zeros that a disk or a copy left in a file. A decoder goes on behind one with wrong pixels.

Compressed pixels of one tone may be zeros, too, such as the black rim of a dermatoscope. They begin and end anywhere; a
hole begins and ends with a sector, so a run of zeros is a hole only where both of its ends do.
"""

import re

_SECTOR = 512
_ZEROS = bytes(_SECTOR)
_OTHER = re.compile(rb"[^\0]")
#: Bytes beside a hole that may be zeros by chance.
_CHANCE = 3


def has_hole(data: bytes, start: int = 0, end: int | None = None) -> bool:
    """Whether compressed pixels have a hole.

    Args:
        data: a whole file, from its first byte.
        start: where its compressed pixels begin.
        end: where they end. None: with the file.
    """
    end = len(data) if end is None or end < 0 else end
    place = data.find(_ZEROS, start, end)
    while place >= 0:
        behind = _OTHER.search(data, place, end)
        if behind is None:
            # Padding at the end.
            return False
        if -place % _SECTOR <= _CHANCE and behind.start() % _SECTOR <= _CHANCE:
            return True
        place = data.find(_ZEROS, behind.start(), end)
    return False
