"""One synthetic evaluation for all tests of what is told of it.

The trainer is imported by those tests alone: most of this folder is of the worker, which does without it.
"""

from typing import Any

import pandas as pd
import pytest


@pytest.fixture(scope="session")
def evaluated_images(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    from tests.unit.trainer.synthetic_report import draw_images

    return draw_images(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def report(evaluated_images: pd.DataFrame) -> dict[str, Any]:
    from tests.unit.trainer.synthetic_report import synthetic_report

    return synthetic_report(evaluated_images)
