"""The one place that imports OpenCV, because a limit must stand in the environment before the import.

A 17 KB PNG can decode to 411 MB. OpenCV refuses images above ``OPENCV_IO_MAX_IMAGE_PIXELS`` before it allocates,
but reads that variable only when its library is loaded. Every module of dermq takes ``cv2`` from here.
"""

import os

#: Pixels of the largest image that is decoded: 64 Mi pixels, 192 MiB as 8-bit RGB. Dermoscopy cameras stay below 50.
MAX_IMAGE_PIXELS = 64 * 1024 * 1024

os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"] = str(MAX_IMAGE_PIXELS)
# Decoders write their warnings, file names included, to stderr: what matters reaches us as a return value.
os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")

import cv2  # noqa: E402

# Parallelism comes from worker processes; OpenCV's own threads would fight the engine's for two cores.
cv2.setNumThreads(1)

__all__ = ["MAX_IMAGE_PIXELS", "cv2"]
