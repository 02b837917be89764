"""What is said, and what is done, where bounds carry no information, as those of deep networks do not."""

import copy
import itertools
import re
from dataclasses import replace

import pytest
import torch
from torch import nn

import robnet_fx
from robnet_fx.errors import RobnetError
from robnet_fx.images.sets import split
from robnet_fx.machine.progress import SILENT
from robnet_fx.opening.opened import open_model
from robnet_fx.problem import Problem
from robnet_fx.train import Recipe, run, train
from robnet_fx.train import prepare as preparation
from robnet_fx.train.checkpoint import load
from robnet_fx.train.objectives import EQUATION_6, objective_named
from robnet_fx.train.prospect import prospect
from robnet_fx.train.settings import Training
from robnet_fx.verify.score import Score
from tests.small import Data, bounded, digits

X, Y = digits()
X = X.clamp(max=200)  # the clip would be a source of errors of its own
TRAIN = X[:200], Y[:200]
RECIPE = Recipe.short(4, batch_size=32)


class Nothing(nn.Module):
    """A residual block that adds nothing, which bounds do not know: the errors of both halves count."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.into, self.back = nn.Linear(size, 2 * size), nn.Linear(2 * size, size, bias=False)
        weight, bias, back = torch.randn(size, size) * 20, torch.randn(size) * 20, torch.randn(size, size) / 5
        self.into.weight, self.into.bias = nn.Parameter(torch.cat([weight] * 2)), nn.Parameter(torch.cat([bias] * 2))
        self.back.weight = nn.Parameter(torch.cat([back, -back], 1))

    def forward(self, x):
        return x + self.back(self.into(x).relu())


@pytest.fixture(scope="module")
def compiled():
    *first, last = copy.deepcopy(bounded(fit=200).model)
    torch.manual_seed(0)
    model = nn.Sequential(*first, *(Nothing(24) for _ in range(4)), last).eval()
    net = robnet_fx.bound(model, robnet_fx.BiasField(1, 0.6), example=X[:2] / 255)
    return net, copy.deepcopy(model.state_dict())


@pytest.fixture
def deep(compiled):
    net, state = compiled
    net.model.load_state_dict(state)
    return net


def test_bounds_that_say_nothing_are_told_with_what_would(deep):
    told = prospect(deep, *TRAIN, RECIPE, EQUATION_6, "equation-6")
    assert told.startswith("the bounds to train on say nothing: over what equation-6 bounds at eps 153/255 they lie ")
    (part,) = re.findall(r"--objective (cc:cuts=8,tau=[\d.]+,steps=4)[ :]", told)
    (small,) = re.findall(r"--eps ([\d.]+),", told)
    assert deep.eps == 0.6

    at_small = robnet_fx.bound(deep.model, robnet_fx.BiasField(1, float(small) / 10 / 255), example=X[:2] / 255)
    with torch.no_grad():  # what is told holds, with room to spare, on images that were not looked at
        images, labels = X[200:232] / 255, Y[200:232]
        clean = deep.logits(images)
        right = clean.argmax(1) == labels
        spread = (clean.amax(1) - clean.amin(1)).mean()
        useful, useless = (net.margins(images[right], labels[right]).amax(1).median() for net in (at_small, deep))
        assert useful < 2 * spread and useless > 1e6 * spread
    assert prospect(deep, *TRAIN, RECIPE, objective_named(part), part) is None


class Remarks:
    """A progress that keeps what is remarked."""

    task = SILENT.task

    def __init__(self) -> None:
        self.texts: list[str] = []

    def remark(self, text):
        self.texts.append(text)


@pytest.mark.parametrize("asked", [None, "cc:cuts=8", "stable"])
def test_where_nothing_else_is_asked_for_no_bounds_are_trained_on(deep, asked, monkeypatch):
    said = Remarks()
    monkeypatch.setattr(preparation, "prospect", lambda *given: f"{given[-1]} says nothing\n  tighter  --eps 0.1")
    opened, parts = open_model(deep.model, Data()), split(Data(), None, 20, 0)
    problem = Problem(robnet_fx.BiasField(1, 0.6))
    _, _, name = preparation.prepare(opened, problem, Training(epochs=1), "rsip-ssip", asked, parts, said)
    assert name == (asked or "stable")
    if asked == "stable":
        assert not said.texts
        return
    headline, instead, tighter = said.texts[-1].splitlines()
    assert (headline, tighter) == ("cc:cuts=8 says nothing", "  tighter  --eps 0.1")
    assert instead.startswith("  instead  --objective stable, which needs no bounds")
    assert ("as it is now" in instead) == (asked is None)


def test_bounds_that_say_something_need_no_word():
    net = bounded(eps=0.6, fit=200)
    for name in ("equation-6", "small-boxes"):
        assert prospect(net, *TRAIN, RECIPE, objective_named(name), name) is None
    assert prospect(net, X[:9], (Y[:9] + 1) % 10, RECIPE, EQUATION_6, "equation-6") is None  # nothing is right


def test_a_run_that_explodes_stops_with_its_last_good_state(deep, tmp_path):
    path = tmp_path / "checkpoint.pt"
    before = copy.deepcopy(deep.model.state_dict())
    with pytest.raises(RobnetError) as error:
        train(deep, *TRAIN, RECIPE, checkpoint=path)
    headline, *rest = str(error.value).splitlines()
    assert headline.startswith(
        "training exploded: for 3 steps, up to epoch 1, step 4, the loss was more than 1e+07 times"
    )
    assert rest[-1] == f"  the weights are again those before training, and in {path}"
    assert error.value.exit_code == 1
    state = load(path)
    assert (state["epoch"], state["step"], state["history"]) == (0, 0, [])
    for found in (deep.model.state_dict(), state["model"]):
        assert all(torch.equal(found[name], value) for name, value in before.items())


def test_what_needs_no_bounds_trains_where_they_say_nothing(deep):
    before, errors = copy.deepcopy(deep.model.state_dict()), {}
    for weight in (0, 4):
        deep.model.load_state_dict(before)
        rate = Recipe.short(4, batch_size=32, lr=1e-4)
        last = train(deep, *TRAIN, rate, objective=objective_named(f"stable:weight={weight}")).epochs[-1]
        errors[weight] = last["error"]
        assert last["clean"] > 0.9
    assert errors[4] < 0.9 * errors[0]


def test_the_last_good_state_is_the_end_of_an_epoch(monkeypatch, tmp_path):
    path, net, read = tmp_path / "checkpoint.pt", bounded(fit=200), run.read
    numbers = itertools.chain([0.1] * 7, itertools.repeat(9e9))
    monkeypatch.setattr(run, "read", lambda *args: replace(read(*args), loss=next(numbers)))
    with pytest.raises(RobnetError, match=r"up to epoch 2, step 3,[\s\S]*again those after epoch 1, and in"):
        train(net, *TRAIN, Recipe.short(2, batch_size=32), checkpoint=path)
    state = load(path)
    assert (state["epoch"], state["step"], len(state["history"])) == (1, 0, 1)
    assert all(torch.equal(state["model"][name], value) for name, value in net.model.state_dict().items())
    assert any(
        not torch.equal(value, bounded(fit=200).model.state_dict()[name]) for name, value in state["model"].items()
    )


def test_a_huge_loss_that_comes_down_is_no_explosion(monkeypatch):
    net, read, numbers = bounded(fit=200), run.read, itertools.cycle([9e9, 9e9, 0.1])
    monkeypatch.setattr(run, "read", lambda *args: replace(read(*args), loss=next(numbers)))
    train(net, *TRAIN, Recipe.short(1, batch_size=32))
    numbers = itertools.repeat(9e9)
    with pytest.raises(RobnetError, match="for 3 steps, up to epoch 1, step 3"):
        train(net, *TRAIN, Recipe.short(1, batch_size=32))


@pytest.mark.parametrize(
    ("after", "better"),
    [
        ((0.9, 0.6, 0.7, 0.0), True),
        ((1.0, 0.5, 0.5, 0.3), False),
        ((1.0, 0.5, 0.5, 0.5), True),
        ((0.9, 0.5, 0.6, 0.5), False),
        ((1.0, 0.4, 1.0, 1.0), False),
    ],
)
def test_better_is_certified_then_clean_then_one_box(after, better):
    assert Score(*after).better_than(Score(1.0, 0.5, 0.6, 0.3)) is better
