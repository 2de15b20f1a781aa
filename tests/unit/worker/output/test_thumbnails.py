"""Thumbnails: small, of the picture that was scored and no other, and nothing of the file but its pixels."""

from pathlib import Path

import numpy as np

from tests.picture_files import exif_of_adobe_rgb, pillow
from worker.images.decode import decode
from worker.images.read import sha256_of
from worker.images.read_any import reader_of
from worker.output.thumbnails import SIDE, in_folder, make_thumbnail
from worker.synthetic.lesion import draw_lesion


def test_a_thumbnail_is_small_and_holds_pixels_only(tmp_path: Path) -> None:
    picture = draw_lesion(3, width=900, height=600)
    (tmp_path / "a.jpg").write_bytes(pillow("JPEG", picture, quality=95, exif=exif_of_adobe_rgb()))
    data = make_thumbnail(reader_of(str(tmp_path)), "a.jpg", None, 10**7)
    assert data is not None
    assert b"Exif" not in data
    assert decode(data).shape == (SIDE * 2 // 3, SIDE, 3)


def test_a_picture_that_is_not_the_scored_one_is_not_shown(tmp_path: Path) -> None:
    first, second = (pillow("PNG", draw_lesion(seed, width=300, height=240)) for seed in (1, 2))
    (tmp_path / "a.png").write_bytes(first)
    reader = reader_of(str(tmp_path))
    assert make_thumbnail(reader, "a.png", sha256_of(first), 10**7) is not None
    (tmp_path / "a.png").write_bytes(second)
    assert make_thumbnail(reader, "a.png", sha256_of(first), 10**7) is None
    (tmp_path / "a.png").unlink()
    assert make_thumbnail(reader, "a.png", None, 10**7) is None


def test_the_folder_of_thumbnails_is_for_its_user_alone(tmp_path: Path) -> None:
    address = in_folder({7: b"jpeg"}, tmp_path / "page.pictures")
    assert (address(7), address(8)) == ("page.pictures/7.jpg", None)
    assert (tmp_path / "page.pictures").stat().st_mode & 0o777 == 0o700
    assert np.frombuffer((tmp_path / "page.pictures" / "7.jpg").read_bytes(), np.uint8).size == 4
