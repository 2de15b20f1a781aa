"""What is printed is what was there."""

import pytest

from worker.terminal import make_console


@pytest.mark.parametrize("name", ["patient7:ear:1.jpg", "x:x:.jpg", ":foot:/a.jpg"])
def test_names_that_look_like_emoji_are_printed_as_they_are(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    make_console().print(name)
    assert capsys.readouterr().out == f"{name}\n"
