"""Whether a JPEG that gives a picture is whole.

OpenCV's decoder fills what is damaged in the middle of a JPEG with grey or with shifted colours, says so on standard
error alone, and hands the picture over like any other. `simplejpeg` raises what libjpeg-turbo says.
The pixels that are scored stay OpenCV's.
"""

import simplejpeg

_START = b"\xff\xd8"
_SCAN = 0xDA
#: Frames whose scans hold every coefficient at once: their three last parameters must be these, and mean nothing.
_SEQUENTIAL_FRAMES = (0xC0, 0xC1)
_SEQUENTIAL_PARAMETERS = b"\x00\x3f\x00"
#: Segments of applications (versions, colour profiles, thumbnails) and comments.
_WITHOUT_PIXELS = (*range(0xE0, 0xF0), 0xFE)
#: What the checker says of proportions of colour samples that it does not know; nothing of damage.
_NOT_CHECKED = "Could not determine subsampling"
#: What libjpeg says when an allocation failed.
_NO_MEMORY = "Insufficient memory"


def jpeg_damage(data: bytes) -> str | None:
    """What libjpeg-turbo finds wrong with the compressed picture, all of which it reads.

    A segment that holds no pixels may be odd: some cameras write a version that nobody knows, some editors a broken
    colour profile. So an image that is refused is asked about again without such segments.

    Args:
        data: a file that OpenCV decodes; its size was checked by that.

    Returns:
        Its words, or None: nothing is wrong, or the rare proportions of its colour samples cannot be checked. Damage
        that happens to be valid code for other pixels is found by nobody.

    Raises:
        MemoryError: there is not enough memory to check it.
    """
    found = _complaint(data)
    return found if found is None else _complaint(_without_segments(data))


def _complaint(data: bytes) -> str | None:
    try:
        # An eighth of each side, in grey: every bit is decoded, next to nothing is transformed.
        simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        said = str(error)
        if _NO_MEMORY in said:
            raise MemoryError from None
        return None if _NOT_CHECKED in said else said
    return None


def _without_segments(data: bytes) -> bytes:
    """The picture alone, up to its first scan; as it is, where its segments cannot be followed."""
    parts, place, frame = [_START], len(_START), 0
    while data[place : place + 1] == b"\xff" and place + 4 <= len(data):
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker == 0xFF:
            # Any number of these may stand before a marker.
            place += 1
            continue
        end = place + 2 + length
        if marker == _SCAN:
            head, rest = data[place:end], data[end:]
            if frame in _SEQUENTIAL_FRAMES:
                # libjpeg warns of others, which some encoders leave at zero, and decodes as if they were right.
                head = head[: -len(_SEQUENTIAL_PARAMETERS)] + _SEQUENTIAL_PARAMETERS
            return b"".join([*parts, head, rest])
        if 0xC0 <= marker <= 0xC2:
            frame = marker
        if marker not in _WITHOUT_PIXELS:
            parts.append(data[place:end])
        place = end
    return data
