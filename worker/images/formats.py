"""File suffixes of the image formats that dermq reads, and how DICOM files are recognised."""

#: Suffixes of the files that a folder is searched for, in lower case. Workers recognise the format by content.
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".webp"))

#: Suffixes of DICOM files, and their mark behind a preamble of 128 bytes (DICOM PS3.10, section 7.1).
DICOM_SUFFIXES = frozenset((".dcm", ".dicom", ".dic"))
DICOM_MARK, DICOM_MARK_AT = b"DICM", 128
