"""One made-up evaluation for all tests of what is told of it.

The trainer is imported by those tests alone: most of this folder is of the worker, which does without it.
"""

from typing import Any

import pandas as pd
import pytest


@pytest.fixture(scope="session")
def evaluated_images(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    from tests.unit.trainer.synthetic_report import make_up_images

    return make_up_images(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def report(evaluated_images: pd.DataFrame) -> dict[str, Any]:
    from tests.unit.trainer.synthetic_report import make_up_report

    return make_up_report(evaluated_images)
