"""The only module that imports OpenCV, because a limit must be in the environment before the import.

A PNG of 17 KB can decode to 411 MB. OpenCV refuses images above ``OPENCV_IO_MAX_IMAGE_PIXELS`` before it allocates, but
reads that variable only when its library is loaded. Every module of dermq imports ``cv2`` from here.
"""

import os

#: Pixels of the largest image that is decoded: 64 Mi, 192 MiB as 8-bit RGB. Dermoscopy cameras have fewer than 50 Mi.
MAX_IMAGE_PIXELS = 64 * 1024 * 1024

os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_IMAGE_PIXELS)
# OpenCV would write warnings with file names to standard error. What matters is in its return values.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

import cv2  # noqa: E402

# Worker processes run in parallel. OpenCV's own threads would compete with them.
cv2.setNumThreads(1)

__all__ = ["MAX_IMAGE_PIXELS", "cv2"]
