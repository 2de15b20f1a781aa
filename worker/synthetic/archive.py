"""A synthetic archive: images of several sizes and formats, and a file of every kind that is not scored."""

import os
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np

from worker.errors import OutputError
from worker.images.colour import RGBImage
from worker.images.opencv import MAX_IMAGE_PIXELS, cv2
from worker.synthetic.lesion import draw_lesion

#: Folder, suffix, width and height in pixels, taken in turn.
_KINDS = (
    ("2019/clinic-a", ".jpg", 600, 450),
    ("2019/clinic-b", ".jpg", 1024, 768),
    ("2020/clinic-a", ".png", 600, 450),
    ("2020/clinic-b", ".tiff", 640, 480),
    ("2021", ".jpg", 450, 600),
    ("2021", ".webp", 800, 600),
    ("2021", ".bmp", 400, 300),
    ("2022", ".jpeg", 600, 450),
)


def make_archive(folder: Path, count: int) -> None:
    """Make the archive, unless an earlier call has completed it.

    Args:
        folder: to make. It replaces only a folder that this function made.
        count: of images to score. Twelve more files are broken, too small, of one tone, blurred or not dermoscopy.

    Raises:
        OutputError: the folder holds other files.
    """
    # Written last, so that an interrupted archive is made again; beside it, as it is no part of the archive.
    done = folder.with_name(f"{folder.name}.complete")
    if done.exists() and folder.exists():
        return
    if folder.exists() and any(folder.iterdir()) and not (folder / "2019").exists():
        raise OutputError(f"{folder} holds other files. Give a new folder for the synthetic archive.")
    shutil.rmtree(folder, ignore_errors=True)
    for index in range(count):
        place, suffix, width, height = _KINDS[index % len(_KINDS)]
        _write(folder / place / f"lesion-{index:04d}{suffix}", draw_lesion(index, width=width, height=height))
    _add_broken(folder, folder.parent / f"{folder.name}-elsewhere")
    done.touch()


def _write(path: Path, image: RGBImage) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encode(image, path.suffix))


def encode(image: RGBImage, suffix: str) -> bytes:
    """Encode an RGB image in the format of a suffix."""
    encoded, data = cv2.imencode(suffix, cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not encoded:
        raise ValueError(f"OpenCV cannot write {suffix}")
    return data.tobytes()


def _add_broken(folder: Path, elsewhere: Path) -> None:
    broken = folder / "broken"
    broken.mkdir(parents=True, exist_ok=True)
    jpeg = encode(draw_lesion(7_001), ".jpg")
    (broken / "empty.jpg").write_bytes(b"")
    (broken / "truncated.jpg").write_bytes(jpeg[: len(jpeg) // 2])
    (broken / "truncated.png").write_bytes(encode(draw_lesion(7_002), ".png")[:-2_000])
    (broken / "letter.jpg").write_text("Dear colleague, the picture is in the other envelope.\n")
    (broken / "bomb.png").write_bytes(decompression_bomb())
    (broken / "no-permission.jpg").write_bytes(jpeg)
    (broken / "no-permission.jpg").chmod(0)
    elsewhere.mkdir(parents=True, exist_ok=True)
    (elsewhere / "outside.jpg").write_bytes(jpeg)
    (broken / "link-out-of-the-archive.jpg").symlink_to(os.path.relpath(elsewhere / "outside.jpg", broken))
    ungradable = folder / "ungradable"
    ungradable.mkdir(exist_ok=True)
    (ungradable / "thumbnail.jpg").write_bytes(encode(draw_lesion(7_003, width=96, height=72), ".jpg"))
    (ungradable / "lens-cap.jpg").write_bytes(encode(np.full((450, 600, 3), 12, np.uint8), ".jpg"))
    blurred = cv2.GaussianBlur(draw_lesion(7_004), (0, 0), 25)
    (ungradable / "out-of-focus.jpg").write_bytes(encode(blurred, ".jpg"))  # type: ignore[arg-type]
    (ungradable / "scanned-letter.png").write_bytes(encode(draw_letter(), ".png"))


def draw_letter() -> RGBImage:
    """A page of text, (1100, 800, 3), uint8, RGB."""
    page = np.full((1100, 800, 3), 250, np.uint8)
    for line in range(24):
        text = "Dear colleague, thank you for referring this patient."[: 53 if line % 6 != 5 else 17]
        cv2.putText(page, text, (50, 90 + 40 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.75, (25, 25, 35), 2, cv2.LINE_AA)
    return page


def decompression_bomb() -> bytes:
    """A PNG of some hundred kilobytes that declares more pixels than dermq decodes."""
    width = 12_000
    height = MAX_IMAGE_PIXELS // width + 1_000

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    compressor = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    pixels = b"".join(compressor.compress(row) for _ in range(height)) + compressor.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", pixels) + part(b"IEND", b"")
