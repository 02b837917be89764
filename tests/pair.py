"""What two processes and one do alike: small jobs, whose results tests/machine/test_ranks.py compares.

Everything here is imported by processes of their own, which pytest does not know of.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import Interrupted, RobnetError
from robnet_fx.machine import ranks
from robnet_fx.machine.progress import SILENT
from robnet_fx.train import Phase, Recipe, train
from robnet_fx.verify import verdicts
from robnet_fx.verify.attack import attack
from tests.mixture import Mixture
from tests.small import bounded, digits, moody_net, plain_net

X, Y = digits()
VALIDATION = X[200:261], Y[200:261]  # odd: parts of unequal size
RECIPE = Recipe(
    (Phase("standard", 1, 5e-3, 0, 0, robust=False), Phase("ramp", 1, 2e-3, 0, 1), Phase("full", 1, 1e-3)),
    batch_size=34,
    augment=True,
    seed=3,
)
STEPS = 3  # of 33 or 34 images
STOPS = 1, 4, 9  # in a standard epoch, in a robust one, after the last


def exact_net(seed: int = 0) -> nn.Module:
    """Without batch norm and dropout, in float64: two processes have one's gradients up to rounding."""
    return plain_net(seed).double()


def exact(**options: int) -> BoundedModel:
    return bounded(exact_net, eps=0.3, **options)


class Stop:
    """Presses Ctrl-C on every rank when `after` steps are done."""

    def __init__(self, after: int) -> None:
        self.left = after + 1  # the first call reports where the run stands

    def task(self, name: str, total: int) -> Any:
        return SILENT.task(name, total) if name != "training" else self

    def __enter__(self) -> Stop:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def advance(self, steps: int = 1, **figures: object) -> None:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt


def trained(net: Any, *args: Any, **options: Any) -> tuple[dict[str, torch.Tensor], Any]:
    history = train(net, *args, **options)
    return {k: v.clone() for k, v in net.model.state_dict().items()}, history


def several_steps(folder: Path) -> Any:
    net = exact(fit=200 if ranks.leader() else 0)  # the leader's weights count
    return trained(net, X[:101], Y[:101], RECIPE, validation=VALIDATION, checkpoint=folder / "exact.pt")


def another_objective(folder: Path) -> Any:
    return trained(exact(fit=200), X[:5], Y[:5], replace(RECIPE, batch_size=2), objective=Mixture())


def more_ranks_than_images(folder: Path) -> Any:
    """Batches of one image: the last rank has none."""
    return trained(exact(fit=200), X[:4], Y[:4], Recipe((Phase("full", 1, 1e-3),), batch_size=1))


def one_step(index: torch.Tensor, labels: torch.Tensor) -> Any:
    """One batch, in which the images come in the order of `index`."""
    recipe = Recipe((Phase("full", 1, 1e-3),), batch_size=len(index))
    shuffled = torch.randperm(len(index), generator=torch.Generator().manual_seed(recipe.seed))
    images, targets = torch.empty_like(X[index]), torch.empty_like(labels)
    images[shuffled], targets[shuffled] = X[index], labels
    return trained(exact(fit=200), images, targets, recipe)


def sorted_by_verdict() -> tuple[torch.Tensor, torch.Tensor]:
    """(ten active images, ten certified ones)."""
    found = verdicts(exact(fit=200), X[:400], Y[:400])
    active, certified = (found.correct & ~found.certified).nonzero(), found.certified.nonzero()
    return active.flatten()[:10], certified.flatten()[:10]


def no_active_sample(folder: Path) -> Any:
    index = torch.cat(sorted_by_verdict())
    return one_step(index, Y[index])


def no_correct_sample(folder: Path) -> Any:
    index = torch.cat(sorted_by_verdict())
    return one_step(index, torch.cat([Y[index[:10]], (Y[index[10:]] + 1) % 10]))


def proofs(folder: Path) -> Any:
    net = exact(fit=200)
    found = verdicts(net, X[1500:1561], Y[1500:1561], batch_size=16)
    few = verdicts(net, X[:1], Y[:1])  # the last rank has none
    return tuple(found), tuple(few), attack(net, X[1500:1561], Y[1500:1561], steps=5, restarts=2).coefficients


def moody(folder: Path) -> Any:
    """Batch norm and dropout: whole, and stopped and resumed."""
    common = {"validation": VALIDATION}
    data = X[:101], Y[:101]
    whole = trained(bounded(moody_net), *data, RECIPE, **common)
    resumed = []
    for stop in STOPS:
        path = folder / f"stopped-{stop}.pt"
        with suppress(Interrupted):
            train(bounded(moody_net), *data, RECIPE, checkpoint=path, progress=Stop(stop), **common)
        meet()
        resumed.append(trained(bounded(moody_net, seed=7), *data, RECIPE, checkpoint=path, resume=True, **common))
    return whole, resumed


def stopped(folder: Path) -> Any:
    """A checkpoint to be resumed by another number of processes, and where this one would have ended."""
    path = folder / "other-world.pt"
    args = exact(fit=200), X[:101], Y[:101], RECIPE
    with suppress(Interrupted):
        train(*args, checkpoint=path, progress=Stop(4))
    meet()
    ranks.by_leader(lambda: shutil.copy(path, folder / "untouched.pt"))
    return trained(*args, checkpoint=path, resume=True)


def random_numbers(folder: Path) -> Any:
    """(drawn in two steps by each rank for itself, drawn by all alike)."""
    torch.manual_seed(0)
    own = []
    for step in range(2):
        with ranks.own_random_numbers(step, torch.device("cpu")):
            own.append(torch.rand(()).item())
    return own, torch.rand(()).item()


def divergence(folder: Path) -> Any:
    """The last rank alone meets a number that is not finite."""
    net = exact()
    handle = net.model[0].weight.register_hook(lambda g: g * (torch.nan if ranks.rank() == ranks.world() - 1 else 1))
    return refusal(lambda: train(net, X[:40], Y[:40], RECIPE)), handle.remove()


def leaders_error(folder: Path) -> Any:
    """What only the leader finds out, all of them say."""
    nowhere = folder / "no-directory" / "checkpoint.pt"
    return refusal(lambda: train(exact(), X[:40], Y[:40], RECIPE, checkpoint=nowhere))


def a_rank_that_leaves(folder: Path) -> Any:
    """The last job: the leader waits for a rank that is gone."""
    if ranks.leader():
        return refusal(lambda: ranks.total([torch.ones(3)]))
    return None


JOBS: list[Callable[[Path], Any]] = [
    several_steps,
    another_objective,
    more_ranks_than_images,
    no_active_sample,
    no_correct_sample,
    proofs,
    moody,
    stopped,
    random_numbers,
    divergence,
    leaders_error,
    a_rank_that_leaves,
]


def refusal(work: Callable[[], object]) -> str:
    try:
        work()
    except RobnetError as error:
        return str(error)
    return "nothing was refused"


def meet() -> None:
    ranks.by_leader(lambda: None)


def process(rank: int, world: int, port: int, folder: Path) -> None:
    """One of `world` processes: every job in turn."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    with ranks.joined():
        results = {job.__name__: job(folder) for job in JOBS}
    torch.save(results, folder / f"rank-{rank}.pt")
