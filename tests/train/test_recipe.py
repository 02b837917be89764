import json
from itertools import pairwise

import pytest

from robnet_fx.errors import UsageError
from robnet_fx.train.recipe import Phase, Recipe


def shares(recipe, steps):
    return [recipe.at(e, s, steps).share for e in range(recipe.epochs) for s in range(steps)]


def test_the_papers_phases():
    recipe = Recipe.paper(pretrain=True)
    assert [(p.epochs, p.lr, p.robust) for p in recipe.phases] == [
        (80, 1e-3, False),
        (80, 1e-4, False),
        (40, 1e-5, False),
        (100, 5e-4, True),
        (50, 5e-4, True),
        (25, pytest.approx(5e-5), True),
        (25, pytest.approx(5e-6), True),
    ]
    assert Recipe.paper().epochs == 200


@pytest.mark.parametrize("steps", [1, 2, 7])
@pytest.mark.parametrize("epochs", [1, 2, 3, 5, 8, 30])
def test_eps_rises_evenly_from_zero_and_reaches_the_target(epochs, steps):
    recipe = Recipe.short(epochs)
    values = shares(recipe, steps)
    assert recipe.epochs == epochs
    assert values[-1] == 1.0
    ramp = values[: recipe.phases[0].epochs * steps]
    assert ramp[-1] == 1.0  # exactly, and inside the ramp: what follows starts at the full eps
    if len(ramp) > 1:
        assert ramp[0] == 0.0
        gaps = [b - a for a, b in pairwise(ramp)]
        assert gaps == pytest.approx([1 / (len(ramp) - 1)] * len(gaps))
    assert values[len(ramp) :] == [1.0] * (len(values) - len(ramp))


def test_short_keeps_the_papers_proportions():
    assert [(p.epochs, p.lr) for p in Recipe.short(40).phases] == [
        (20, 5e-4),
        (10, 5e-4),
        (5, pytest.approx(5e-5)),
        (5, pytest.approx(5e-6)),
    ]
    assert [p.epochs for p in Recipe.short(10, pretrain=True).phases if not p.robust] == [4, 4, 2]
    assert Recipe.short(10, pretrain=True).epochs == 20


def test_standard_phases_know_no_eps():
    recipe = Recipe.short(4, pretrain=True)
    assert {recipe.at(e, s, 3).share for e in range(4) for s in range(3)} == {0.0}
    assert not recipe.at(3, 2, 3).phase.robust


def test_the_learning_rate_follows_the_phase():
    recipe = Recipe((Phase("a", 1, 0.5), Phase("b", 2, 0.25)))
    assert [recipe.at(e, 0, 9).phase.lr for e in range(3)] == [0.5, 0.25, 0.25]
    with pytest.raises(IndexError):
        recipe.at(3, 0, 9)


def test_a_recipe_is_plain_data():
    assert json.loads(json.dumps(Recipe.short(3).to_dict()))["phases"][0]["name"] == "ramp"


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Recipe.short(0),
        lambda: Recipe(()),
        lambda: Recipe.short(2, batch_size=0),
        lambda: Recipe.short(2, alpha=-1.0),
        lambda: Recipe.short(2, micro_batch=0),
        lambda: Recipe.short(2, micro_rows=0),
        lambda: Recipe.short(2, alpha=float("nan")),
        lambda: Recipe.short(2, lr=0.0),
        lambda: Phase("p", -1, 1e-3),
        lambda: Phase("p", 1, 1e-3, end=1.5),
    ],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(UsageError):
        wrong()
