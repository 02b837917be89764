import dataclasses

import pytest
import torch

from robnet_fx import BiasField, WhiteNoise
from robnet_fx.errors import UsageError
from robnet_fx.train.gradients import accumulate
from robnet_fx.train.objectives import CC, OBJECTIVES, Equation6, SmallBoxes, default_objective, objective_named
from tests.small import bounded, digits


def test_an_objective_is_found_by_name():
    assert objective_named("equation-6") == Equation6()
    with pytest.raises(UsageError, match="unknown objective 'equation-5'; known: equation-6"):
        objective_named("equation-5")


def test_the_usual_one_cuts_what_can_be_cut():
    field, noise = BiasField(3, 0.1).build((1, 33, 33)), WhiteNoise(0.1).build((1, 33, 33))
    assert objective_named(default_objective(field)) == CC(cuts=8)
    assert objective_named(default_objective(noise)) == Equation6()


def test_parameters_follow_the_name():
    assert objective_named("small-boxes:cuts=4,tau=0.5") == SmallBoxes(cuts=4, tau=0.5)
    assert objective_named("cc:share=0.25") == CC(share=0.25)
    for said, reason in {
        "small-boxes:width=2": "no parameter 'width'; it has: cuts, tau, steps",
        "equation-6:cuts=2": "no parameter 'cuts'; it has: none",
        "small-boxes:cuts=many": "cuts is no int: 'many'",
        "small-boxes:cuts": "cuts is no int: ''",
        "small-boxes:tau=2": "tau is a share",
    }.items():
        with pytest.raises(UsageError, match=reason):
            objective_named(said)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_is_a_frozen_value_with_what_a_step_needs(name):
    objective = objective_named(name)
    assert dataclasses.is_dataclass(objective) and objective == objective_named(name)
    with pytest.raises(dataclasses.FrozenInstanceError):
        objective.anything = 1
    assert not {"clean", "certified"} & objective.weights(1.0).keys()
    x, y = digits()
    net = bounded(eps=0.3, fit=60)
    figures = accumulate(net, x[:20] / 255, y[:20], objective=objective, alpha=1.0, part=6)
    assert list(figures.losses) == list(objective.weights(1.0))
    assert next(iter(figures.losses)) == "standard"
    assert all(torch.isfinite(value) and not value.requires_grad for value in figures.losses.values())
