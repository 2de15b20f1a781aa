"""One made-up evaluation for all tests of what is told of it."""

from typing import Any

import pandas as pd
import pytest

from tests.unit.made_up_report import make_up_images, make_up_report


@pytest.fixture(scope="session")
def evaluated_images(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return make_up_images(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def report(evaluated_images: pd.DataFrame) -> dict[str, Any]:
    return make_up_report(evaluated_images)
