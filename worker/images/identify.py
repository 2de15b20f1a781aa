"""What a file is by its content. Its name does not matter."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Format = Literal["jpeg", "png", "tiff", "bmp", "webp"]

#: Bytes of a file that `sniff_format` needs.
SIGNATURE_BYTES = 16
#: First bytes of a text that are examined.
_TEXT_BYTES = 1_024

_CONVERT = "Save it as PNG or JPEG"
_UNPACK = "Submit the archive file itself, or unpack it and submit the folder"
_DICOM = "Submit the folder with DICOM support installed (pip install 'dermq[dicom]'), or export it as PNG or JPEG"
_DOWNLOAD = "Download the picture itself and submit again"
_RESTORE = "Copy the file again from where it came from"
_LEAVE = "Leave it out with --exclude"


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a file is, with an article, and what a person can do about it."""

    name: str
    advice: str


def sniff_format(data: bytes) -> Format | None:
    """Recognise a format that dermq decodes by the first bytes.

    Args:
        data: at least the first 16 bytes of the file.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+") and data[8:10] != b"CR":
        return "tiff"
    if data.startswith(b"BM"):
        return "bmp"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    return None


def describe_content(data: bytes) -> Content:
    """Name what is no picture that dermq decodes. Any bytes get an answer."""
    for (name, advice), recognises in _KINDS.items():
        if recognises(data):
            return Content(name=name, advice=advice)
    return Content(name="of a kind that dermq does not know", advice=_CONVERT)


def is_dicom(data: bytes) -> bool:
    """Whether bytes begin a DICOM file: with the mark of PS3.10, section 7.1, or as a data set without a preamble."""
    if data[128:132] == b"DICM":
        return True
    # Group 2 or 8, an element of its first ones, and an explicit value representation or a short length, as old
    # scanners wrote.
    group, element = data[:2], data[2:4]
    if group not in (b"\x02\0", b"\x08\0") or element not in (b"\0\0", b"\x01\0", b"\x05\0", b"\x08\0", b"\x16\0"):
        return False
    return data[4:6] in (b"UL", b"CS", b"UI", b"OB") or 0 < int.from_bytes(data[4:8], "little") <= 64


def _starts(*signatures: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(signatures)


def _brand(*brands: bytes) -> Callable[[bytes], bool]:
    """An ISO base media file of one of these brands (ISO/IEC 14496-12)."""

    def recognises(data: bytes) -> bool:
        if data[4:8] != b"ftyp":
            return False
        end = min(int.from_bytes(data[:4], "big"), 256, len(data))
        found = {data[8:12], *(data[place : place + 4] for place in range(16, end, 4))}
        return not found.isdisjoint(brands)

    return recognises


def _zip_with(*names: bytes) -> Callable[[bytes], bool]:
    return lambda data: data.startswith(b"PK\x03\x04") and any(name in data[:8_192] for name in names)


def _text(pattern: bytes) -> Callable[[bytes], bool]:
    compiled = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:" + pattern + rb")", re.IGNORECASE)
    return lambda data: compiled.match(data[:_TEXT_BYTES]) is not None


def _is_text(data: bytes) -> bool:
    head = data[:_TEXT_BYTES]
    return b"\0" not in head and sum(byte < 32 and byte not in b"\t\n\r\f" for byte in head) == 0


#: The first that recognises a file names it.
_KINDS: dict[tuple[str, str], Callable[[bytes], bool]] = {
    ("a file of zeros", _RESTORE): lambda data: not data.strip(b"\0"),
    ("a DICOM file", _DICOM): is_dicom,
    ("a Word document", _CONVERT): _zip_with(b"word/"),
    ("an Excel workbook", _LEAVE): _zip_with(b"xl/"),
    ("a PowerPoint presentation", _CONVERT): _zip_with(b"ppt/"),
    ("an OpenDocument file", _CONVERT): _zip_with(b"mimetypeapplication/vnd.oasis"),
    ("a ZIP archive", _UNPACK): _starts(b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08"),
    ("a HEIC picture", _CONVERT): _brand(b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"),
    ("an AVIF picture", _CONVERT): _brand(b"avif", b"avis"),
    ("a HEIF picture", _CONVERT): _brand(b"mif1", b"msf1"),
    ("a Canon raw picture (CR3)", _CONVERT): _brand(b"crx "),
    ("a video", "Save the frame that matters as PNG or JPEG"): lambda data: (
        data[4:8] in (b"ftyp", b"moov")
        or data.startswith((b"\x1aE\xdf\xa3", b"\0\0\x01\xba", b"\0\0\x01\xb3"))
        or (data.startswith(b"RIFF") and data[8:12] == b"AVI ")
    ),
    ("a JPEG 2000 picture", _CONVERT): _starts(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51"),
    ("a JPEG XL picture", _CONVERT): _starts(b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"),
    ("a JPEG XR picture", _CONVERT): _starts(b"II\xbc"),
    ("a GIF picture", _CONVERT): _starts(b"GIF87a", b"GIF89a"),
    ("a PDF document", "Save its pictures as PNG or JPEG"): _text(rb"%PDF-"),
    ("a Photoshop file", _CONVERT): _starts(b"8BPS"),
    ("a GIMP file", _CONVERT): _starts(b"gimp xcf"),
    ("a Canon raw picture (CR2)", _CONVERT): lambda data: data[8:10] == b"CR" and data[:2] in (b"II", b"MM"),
    ("a Panasonic raw picture (RW2)", _CONVERT): _starts(b"IIU\0"),
    ("an Olympus raw picture (ORF)", _CONVERT): _starts(b"IIRO", b"IIRS", b"MMOR"),
    ("a Fujifilm raw picture (RAF)", _CONVERT): _starts(b"FUJIFILMCCD-RAW"),
    ("a Sigma raw picture (X3F)", _CONVERT): _starts(b"FOVb"),
    ("an OpenEXR picture", _CONVERT): _starts(b"\x76\x2f\x31\x01"),
    ("a Radiance picture", _CONVERT): _starts(b"#?RADIANCE", b"#?RGBE"),
    ("a picture of the kind PPM, PGM or PBM", _CONVERT): lambda data: re.match(rb"P[1-7]\s", data) is not None,
    ("an icon", _CONVERT): _starts(b"\0\0\x01\0", b"\0\0\x02\0", b"icns"),
    ("a FITS file", _CONVERT): _starts(b"SIMPLE  ="),
    ("a RAR archive", _UNPACK): _starts(b"Rar!\x1a\x07"),
    ("a 7z archive", _UNPACK): _starts(b"7z\xbc\xaf\x27\x1c"),
    ("a compressed file (gzip, bzip2, xz or Zstandard)", _UNPACK): _starts(
        b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"
    ),
    ("a TAR archive", _UNPACK): lambda data: data[257:262] == b"ustar",
    ("an old Office document or a thumbnail store of Windows", _LEAVE): _starts(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
    ("a file of macOS beside another file (AppleDouble)", _LEAVE): _starts(b"\0\x05\x16\x07", b"\0\x05\x16\x00"),
    ("a placeholder of iCloud or a property list of Apple", _DOWNLOAD): _starts(b"bplist"),
    ("a shortcut of Windows", _DOWNLOAD): _starts(b"L\0\0\0\x01\x14\x02\0"),
    ("an SQLite database", _LEAVE): _starts(b"SQLite format 3\0"),
    ("a pointer of Git LFS and not the picture", _DOWNLOAD + " (git lfs pull)"): _text(
        rb"version https?://[^\n]*git-lfs"
    ),
    ("a pointer of git-annex and not the picture", _DOWNLOAD + " (git annex get)"): _text(
        rb"(?:\.\./)*(?:\.git)?/annex/objects"
    ),
    ("a web page (HTML), such as a sign-in page or an error in place of the picture", _DOWNLOAD): _text(
        rb"(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body)\b"
    ),
    ("an SVG drawing", _CONVERT): _text(rb"(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)?(?:<!doctype\s+svg[^>]*>\s*)?<svg\b"),
    ("an XML file", _LEAVE): _text(rb"<\?xml\b"),
    ("a text file", _LEAVE): _is_text,
}
