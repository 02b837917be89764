"""How long an epoch of RSIP-SSIP training takes: the paper's figure of merit, by the trainer that users run.

    python -m tests.benchmarks.epoch [--networks dm-medium dm-large mri] [--device cuda] [--images 50000] [--batch 128]

Random images of the network's size, augmented, alpha 1, eps 40/255, order 3. First an epoch of standard training, so
that there are classes to hold on to, then two robust epochs at the full eps; the second is reported, with how many
samples were active in it, and what share of one large matrix product's rate its convolutions and products reach,
counted on one step with last epoch's guess.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from robnet_fx import BiasField, bound
from robnet_fx.train import Phase, Recipe, train
from robnet_fx.train.loss import accumulate
from robnet_fx.zoo.models import architecture
from tests.benchmarks.speed import device_name, matrix_rate, now

ORDER, EPS = 3, 40 / 255


class Clock:
    """A progress that notes when each step ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Clock]:
        yield self

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self.times.append(now(self.device))


def main() -> None:
    options = parse()
    device = torch.device(options.device)
    rate = matrix_rate(device)
    Console().print(f"{device_name(device)}, torch {torch.__version__}, {rate:.0f} GFLOP/s in a matrix product")
    for name in options.networks:
        Console().print(measure(name, options, device, rate))


def measure(name: str, options: argparse.Namespace, device: torch.device, rate: float) -> str:
    torch.manual_seed(0)
    entry = architecture(name)
    labels = torch.randint(entry.classes, (options.images,))
    means = torch.rand(entry.classes, *entry.input_shape)
    images = (255 * (0.8 * means[labels] + 0.2 * torch.rand(options.images, *entry.input_shape))).to(torch.uint8)
    model = entry.build()
    net = bound(model, BiasField(ORDER, EPS), example=images[:2].float() / 255).to(device)
    phases = Phase("standard", 1, 1e-3, 0, 0, robust=False), Phase("robust", 2, 1e-5)
    recipe = Recipe(phases, batch_size=options.batch, augment=True)
    clock = Clock(device)
    start = time.perf_counter()
    history = train(net, images, labels, recipe, progress=clock)
    whole = time.perf_counter() - start
    steps = -(-options.images // options.batch)
    robust = clock.times[-1] - clock.times[-1 - steps]
    standard = clock.times[steps] - clock.times[0]
    last = history.epochs[-1]
    active = last["clean"] - last["certified"]
    net.set_eps(EPS)
    batch = (images[: options.batch].float() / 255).to(device), labels[: options.batch].to(device)
    guess = accumulate(net, *batch, alpha=1.0).active
    with FlopCounterMode(display=False) as counter:
        accumulate(net, *batch, alpha=1.0, likely=guess)
    share = counter.get_total_flops() * steps / robust / 1e9 / rate
    return (
        f"{name}: {robust:.1f} s an RSIP-SSIP epoch of {options.images} images ({standard:.1f} s a standard one), "
        f"{active:.0%} active, {last['certified']:.0%} certified, {share:.0%} of the matrix rate; "
        f"{whole:.0f} s in all"
    )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["dm-medium", "dm-large", "mri"])
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--device", default="cuda")
    return parser.parse_args()


if __name__ == "__main__":
    main()
