"""Whether a model knows the data it is given, and what it was fed wrongly if not."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import robnet_fx
from robnet_fx import BiasField, UsageError
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.opening.sanity import check_above_chance, doubt
from robnet_fx.verify import classify
from tests.small import bounded, digits

X, Y = digits()
X, Y = X[:300], Y[:300]


class Fed(nn.Module):
    """The digits network behind what undoes the pixels it was trained on."""

    def __init__(self, undo) -> None:
        super().__init__()
        self.inner, self.undo = bounded(fit=200).model, undo

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.undo(x))


def net(undo=lambda x: x, **normalisation) -> BoundedModel:
    return robnet_fx.bound(Fed(undo).eval(), BiasField(0, 0.1), "ibp", example=X[:2] / 255, **normalisation)


def test_a_model_that_knows_the_data_passes_without_a_word():
    assert check_above_chance(net(), X, Y, "digits") == []


def said_of(model: BoundedModel, images: Tensor = X) -> str:
    """What the check finds: below chance in an error, above it in a remark."""
    try:
        (said,) = check_above_chance(model, images, Y, "digits")
        assert "where as it is" in said
    except UsageError as error:
        said = str(error)
        assert "at chance level on digits" in said and "found" in said
    return said


@pytest.mark.parametrize(
    ("undo", "typed"),
    [
        (lambda x: x * 0.3081 + 0.1307, "--mean 0.1307 --std 0.3081"),
        (lambda x: (x * 0.5 + 0.5).clamp(0, 1), "--mean 0.5 --std 0.5"),
        (lambda x: x / 255, "--mean 0 --std 0.0039215686"),
    ],
)
def test_the_normalisation_to_type_is_named(undo, typed):
    assert typed in said_of(net(undo))


@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize(
    ("undo", "given", "typed"),
    [
        (lambda x: x, {"mean": 2.0, "std": 0.5}, "none (--mean 0 --std 1)"),
        (lambda x: (x * 0.5 + 0.5).clamp(0, 1), {"mean": 2.0, "std": 0.5}, "--mean 0.5 --std 0.5"),
    ],
)
def test_a_normalisation_that_should_not_be_there_is_named(layout, undo, given, typed):
    """What is tried replaces the normalisation that was given, wherever the channels are."""
    images = X if layout == "nchw" else X.movedim(1, -1)
    model = robnet_fx.bound(
        Fed(undo).eval(), BiasField(0, 0.1), "ibp", example=images[:2] / 255, layout=layout, **given
    )
    assert typed in said_of(model, images)


def test_inverted_pixels_are_found():
    with pytest.raises(UsageError, match=r"at chance level(.|\n)*found +with inverted pixels (.|\n)*pretrain"):
        check_above_chance(net(lambda x: 1 - x), X, Y, "digits")


@pytest.mark.parametrize(
    "chosen",
    [(Y == 3).nonzero()[:20, 0], torch.arange(3), torch.cat([(Y == 1).nonzero()[:, 0], (Y == 8).nonzero()[:1, 0]])],
)
def test_where_a_test_has_no_power_it_says_so_and_goes_on(chosen):
    """All right or all wrong, one class, three images or a single rare one tell nothing."""
    for undo in (lambda x: x, lambda x: 0 * x):
        (said,) = check_above_chance(net(undo), X[chosen], Y[chosen], "digits")
        assert f"{len(chosen)} images of" in said and "cannot tell whether the model guesses" in said


def test_all_right_on_an_uneven_set_is_no_chance_level():
    """95 of 100 images are of one class: always naming it is a guess, and naming the others too is none."""
    rare, frequent = (Y == 8).nonzero()[:5, 0], (Y == 0).nonzero()[:25, 0].repeat(4)[:95]
    chosen = torch.cat([rare, frequent])
    images, labels = X[chosen], (Y[chosen] == 8).long()

    class Two(nn.Module):
        def __init__(self, constant: bool) -> None:
            super().__init__()
            self.inner, self.constant = bounded(fit=200).model, constant

        def forward(self, x: Tensor) -> Tensor:
            logits = self.inner(x)[:, [0, 8]]
            return logits * 0 + torch.tensor([1.0, 0.0]) if self.constant else logits

    knows, guesses = (
        robnet_fx.bound(Two(constant).eval(), BiasField(0, 0.1), "ibp", example=images[:2] / 255)
        for constant in (False, True)
    )
    assert check_above_chance(knows, images, labels, "digits") == []
    with pytest.raises(UsageError, match=r"at chance level on digits: 95\.0% of 100 images"):
        check_above_chance(guesses, images, labels, "digits")


def test_a_line_about_a_model_that_knows_nothing_of_what_it_is_certified_on():
    def said(model: BoundedModel, images: Tensor, labels: Tensor) -> str:
        return doubt(model, images, labels, *classify(model, images, labels), "digits")

    assert said(net(), X, Y) == ""
    assert said(net(), X[:5], Y[:5]) == ""  # too few to tell, and some are right
    assert said(net(), X[:5], (Y[:5] + 5) % 10).startswith("the model knows nothing of these images of digits: 0.0% of")
    shuffled = Y[torch.randperm(len(Y), generator=torch.Generator().manual_seed(0))]
    assert "as guessing may be" in said(net(), X, shuffled)
    fed = said(net(lambda x: 1 - x), X, Y)
    assert "0.0% of 300 are right; with inverted pixels" in fed
