"""Measures of image quality."""

from worker.images.quality import measure_quality
from worker.synthetic.lesion import draw_lesion


def test_measures_tell_a_lesion_from_a_lens_cap_and_a_blur() -> None:
    picture = draw_lesion(1, width=300, height=240)
    sharp = measure_quality(len(picture), picture)
    assert sharp.short_side == 240
    cap = measure_quality(len(picture), picture * 0 + 12)
    assert (cap.contrast, cap.sharpness) == (0, 0)
    averaged = picture.reshape(24, 10, 30, 10, 3).mean(axis=(1, 3)).repeat(10, axis=0).repeat(10, axis=1)
    smooth = averaged.astype("uint8")
    assert measure_quality(len(picture), smooth).sharpness < sharp.sharpness / 2
