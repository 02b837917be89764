"""What error symbols and methods give on an ONNX classifier of CIFAR-10, and what a box costs: rows of docs/symbols.md
and docs/methods.md.

    python -m tests.benchmarks.budgets resnet20.onnx --mean .4914 .4822 .4465 --std .2471 .2435 .2616 --eps 1 5 \\
                                       --symbols 0 64 all [--parts 8 [--part 3]] [--method rsip] [--images 8] \\
                                       [--double]

`ROBNET_FX_MODELS` and `ROBNET_FX_DATA` name the folders of models and of data packs (tests/conftest.py). Boxes are of a
field of order 3, one image each, the first ones of the test set; margins are against the predicted class. *Rise*: the
mean, over the other classes, of a bound of the margin above the clean margin; *ratio*: rise over the same of the
largest margins on 64 sampled fields of the box, half of them corners. *certified* are images that are classified
correctly in the whole box. With `--parts` the constant coefficient is cut into so many parts, and the box is that of
number `--part`, counted from 0 at the dark end, by default the one just above the middle. Seconds are processor time of
one thread, without generating the graph.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import Tensor

from robnet_fx import BiasField, keep_freed_memory, trace
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.frontend.onnx.load import load_onnx
from robnet_fx.perturbations.base import Box
from robnet_fx.problem import Problem
from robnet_fx.verify.certificate import in_dtype

ORDER, SAMPLES = 3, 64


def main() -> None:
    options = parsed()
    torch.set_num_threads(1)
    keep_freed_memory()
    pixels, labels = images(options.images)
    model = load_onnx(Path(os.environ["ROBNET_FX_MODELS"]) / options.model)
    problem = Problem(BiasField(ORDER, 1 / 255), "relu", mean=options.mean, std=options.std)
    first = BoundedModel(trace(model, pixels[:2]), problem)
    if options.double:
        first, pixels = in_dtype(first, torch.float64), pixels.double()
    for eps in options.eps:
        for symbols in options.symbols:
            net = first.by(options.method, symbols)
            net.set_eps(eps / 255)
            Console().print(row(net, pixels, labels, options), soft_wrap=True, highlight=False, markup=False)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the name of an ONNX file")
    parser.add_argument("--mean", type=float, nargs=3)
    parser.add_argument("--std", type=float, nargs=3)
    parser.add_argument("--eps", type=float, nargs="+", default=[1.0], help="in pixel levels")
    parser.add_argument("--parts", type=int, default=1, help="of the constant coefficient: 1 is the whole box")
    parser.add_argument("--part", type=int, help="which one of them; by default the one just above the middle")
    parser.add_argument("--method", default="rsip-ssip")
    parser.add_argument("--symbols", type=lambda text: text if text == "all" else int(text), nargs="+", default=["all"])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--double", action="store_true", help="in float64")
    return parser.parse_args()


def images(count: int) -> tuple[Tensor, Tensor]:
    """The first test images of CIFAR-10, in [0, 1], and their labels."""
    folder = os.environ["ROBNET_FX_DATA"]
    sys.path.insert(0, folder)
    packs: Any = __import__("load_packs")
    pixels, labels = packs.load_pack(Path(folder) / "cifar10_test.npz")
    return torch.as_tensor(pixels[:count]).float() / 255, torch.as_tensor(labels[:count])


@torch.no_grad()
def row(net: BoundedModel, pixels: Tensor, labels: Tensor, options: argparse.Namespace) -> str:
    """What one method with one number of symbols gives at one eps."""
    number = options.parts // 2 if options.part is None else options.part
    box = part_of(net, options.parts, number)
    net.margins(pixels[:1], net.logits(pixels[:1]).argmax(1), Box(box.center, box.radius * 1e-6))  # makes the graph
    ratios, seconds, certified, right = [], [], 0, 0
    for image, label in zip(pixels.split(1), labels.split(1), strict=True):
        logits = net.logits(image)
        predicted = logits.argmax(1)
        start = time.process_time()
        upper = net.margins(image, predicted, box)
        seconds.append(time.process_time() - start)
        certified += int((predicted == label) & (upper.amax() < 0))
        right += int(predicted == label)
        others = torch.arange(net.classes) != predicted
        clean = margins(logits, predicted)[0, others]
        reached = margins(net(*fields(net, image, box)), predicted)[:, others].amax(0)
        ratios.append(float((upper[0, others] - clean).mean() / (reached - clean).mean()))
    mean, geometric = torch.tensor(ratios).mean(), torch.tensor(ratios).log().mean().exp()
    times, dtype = torch.tensor(seconds), str(net.center.dtype).removeprefix("torch.")
    return (
        f"{dtype} eps {255 * net.eps:g} part {number} of {options.parts} {net.method} {net.symbols}: "
        f"ratio {mean:.4g} / {geometric:.3g}, {times.mean():.3g} s (at most {times.max():.3g}), certified {certified} "
        f"of {right}, load {os.getloadavg()[0]:.1f}; {' '.join(f'{ratio:.3g}' for ratio in ratios[:10])}"
    )


def part_of(net: BoundedModel, parts: int, number: int) -> Box:
    """One of so many equal parts of the box along its constant coefficient."""
    center, radius = net.center.clone(), net.radius.clone()
    radius[0] /= parts
    center[0] += radius[0] * (2 * number + 1 - parts)
    return Box(center.unsqueeze(0), radius.unsqueeze(0))


def margins(logits: Tensor, label: Tensor) -> Tensor:
    return logits - logits[:, label]


def fields(net: BoundedModel, image: Tensor, box: Box) -> tuple[Tensor, Tensor]:
    """Coefficients and images of the sampled fields."""
    t = torch.rand(SAMPLES, box.center.shape[1], generator=torch.Generator().manual_seed(0)) * 2 - 1
    t[::2] = t[::2].sign()
    return box.center + box.radius * t, image.expand(SAMPLES, -1, -1, -1)


if __name__ == "__main__":
    main()
