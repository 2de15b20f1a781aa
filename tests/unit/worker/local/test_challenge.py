"""Champion and challenger: rank correlation and area by hand."""

from worker.local.challenge import Challenge


def test_ranks_and_areas_are_those_by_hand() -> None:
    found = Challenge(
        champion=[0.1, 0.2, 0.3, 0.4],
        challenger=[0.9, 0.8, 0.7, 0.7],
        melanoma=[False, True, None, True],
    )
    # Ranks 1 2 3 4 against 4 3 1.5 1.5: Spearman's with ties.
    assert found.rank_correlation is not None
    assert round(found.rank_correlation, 3) == -0.949
    assert found.area(found.champion) == 1.0
    assert found.area(found.challenger) == 0.0
    assert Challenge(champion=[0.1, 0.2], challenger=[0.1, 0.2]).rank_correlation is None
    assert Challenge(champion=[0.1] * 3, challenger=[0.1, 0.2, 0.3]).rank_correlation is None
    assert Challenge(champion=[0.1], challenger=[0.2], melanoma=[True]).area([0.1]) is None
