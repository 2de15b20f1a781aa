"""File suffixes: of the image formats that dermq reads, of pictures that it does not read, and of DICOM files."""

#: Suffixes of the files that a folder is searched for, in lower case. Workers recognise the format by content.
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".dib", ".webp"))

#: Suffix of a file that stands for a picture in Apple's cloud.
PLACEHOLDER = ".icloud"
#: Suffixes of pictures that dermq does not read. An archive that holds some is told so.
UNREAD_SUFFIXES = frozenset((
    ".heic", ".heif", ".hif", ".avif", ".jp2", ".j2k", ".j2c", ".jpc", ".jpf", ".jpx", ".jpm", ".jxl", ".jxr", ".gif",
    ".psd", ".ppm", ".pgm", ".svs", ".exr", PLACEHOLDER,
    # Of cameras.
    ".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".rw2", ".raf", ".pef", ".srw",
    ".x3f", ".raw", ".rwl", ".3fr", ".mos", ".iiq", ".kdc", ".dcr", ".mrw",
))  # fmt: skip

#: Suffixes of DICOM files.
DICOM_SUFFIXES = frozenset((".dcm", ".dicom", ".dic", ".ima"))
#: The index of a medium, which holds no picture.
DICOM_INDEX = "DICOMDIR"
