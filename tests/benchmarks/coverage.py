"""Which torchvision classifiers robnet-fx takes, and how tight their bounds are: the table of docs/coverage.md.

    python -m tests.benchmarks.coverage --out docs/coverage.md [resnet18 vit_b_32 ...]

Random weights, batch-norm statistics of a batch of random pictures, float64, a first-order field at a tenth of a pixel
level and at one, on one picture. *ratio* is the mean width of RSIP-SSIP's logit bounds over the range of the logits on
sampled fields; where it is large the box is also cut in parts along its widest coefficient, at first the constant one.
Each network has a process of its own, with a limit on its time and memory, and is measured once: what was found is kept
beside the page, as JSON, and a later run goes on from there. Networks that are named go on where a limit ended them.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import resource
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import torch
import torchvision
from rich.console import Console
from torch import Tensor, nn

from robnet_fx import BiasField, RobnetError, trace
from robnet_fx.bounds.dependence import dependents, straight
from robnet_fx.bounds.evaluate import evaluate
from robnet_fx.bounds.methods import OrNone
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.problem import Problem
from tests.benchmarks.page import parse, publish

PIECEWISE = {
    "squeezenet1_0": 32, "squeezenet1_1": 32, "resnet18": 32, "alexnet": 64, "mnasnet0_5": 32, "mnasnet1_0": 32,
    "shufflenet_v2_x0_5": 32, "shufflenet_v2_x1_0": 32, "mobilenet_v2": 32, "regnet_x_400mf": 32, "resnet34": 32,
    "googlenet": 32, "resnet50": 32, "vgg11": 32, "vgg11_bn": 32, "resnext50_32x4d": 32, "densenet121": 32,
    "wide_resnet50_2": 32, "vgg16_bn": 32, "inception_v3": 75,
}  # fmt: skip
SMOOTH = {
    "mobilenet_v3_small": 32, "regnet_y_400mf": 32, "mobilenet_v3_large": 32, "convnext_tiny": 32,
    "efficientnet_b0": 32, "vit_b_32": 32, "swin_t": 32, "efficientnet_v2_s": 32,
}  # fmt: skip
FAMILIES = PIECEWISE | SMOOTH  # with the size of their images, the cheapest first
LEVELS, SYMBOLS = (0.1, 1.0), (0, "all")
PARTS = 16  # of the box, to begin with, where it is cut
FEW = 2**14  # symbols that a part keeps of a piecewise linear network: with more it is too wide
SAMPLES, MOST = 32, 10.0
NARROW = (MOST - 1) / 2  # how far a part's bounds may lie beyond the samples, on either side, in units of their range
NOISE = (  # measured once, before symbols could make way for others
    "Earlier versions of this page used two images of white noise, and batch-norm statistics of 16 of them. On one",
    "such image the ratios with symbols at 0.1 were: squeezenet1_0 and 1_1 1.02, alexnet 1.02, resnet18 1.21,",
    "resnet34 1.71, mnasnet0_5 1.98, shufflenet_v2_x1_0 3.59, shufflenet_v2_x0_5 9.3, mobilenet_v2 9.99, mnasnet1_0",
    "152, googlenet 3.8e3, densenet121 2.3e12, regnet_x_400mf 2.0e16, resnet50 4.7e16, resnext50_32x4d 4.8e18. Of the",
    "twelve that were measured on both kinds of images nine are at most 10 on either, not the same nine.",
)
GOAL = (
    "The goal: at 0.1 nineteen of the twenty piecewise linear networks and four of the eight smooth or gated ones,",
    "which is reached, and at 1 sixteen of the twenty, which is not. Units of the first need symbols where the box",
    "brings them near their kink, and in a part of the box they are few: where one box is behind the cliff, far",
    "beyond anything useful, its parts are mostly within one to four times the sampled range. What is missing at 1",
    "are the deepest, whose parts would have to be too many: near one end of the box googlenet's ratio is 493 in a",
    "sixteenth and 1.8 in a 256th, where a part takes some 4 s; densenet121's is 5e9 in a 128th, and regnet_x_400mf's",
    "2e8 in a 4096th, whose sampled range is two thirds of ten times that at a tenth of the eps: its units bend in",
    "truth. In the smooth ones every unit has an error, wherever it lies: swin_t has 979,677 at an image of 32 x 32,",
    "of which memory held 11,301.",
)
SECONDS, MEMORY = 900, 13 * 2**30  # of a network: of processor time, and of addresses, in bytes


def main() -> None:
    options = parse(__doc__, "only these networks")
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(1)
    store = options.out.with_suffix(".json") if options.out else None
    rows = json.loads(store.read_text()) if store is not None and store.exists() else {}
    for name in options.names or [name for name in FAMILIES if name not in rows]:
        if name not in rows or rows[name]["reason"]:
            rows[name] = limited(name, rows.get(name, empty(name)))
            Console(stderr=True).print(rows[name])
        if store is not None:
            store.write_text(json.dumps(rows, indent=1))
        publish(document([rows[known] for known in FAMILIES if known in rows]), options.out)


def empty(name: str) -> dict[str, Any]:
    """A row in which nothing has been measured."""
    return {"name": name, "trace": False, "levels": [], "reason": ""}


def limited(name: str, row: dict[str, Any]) -> dict[str, Any]:
    """One row, found by a process of its own within the limits; what it had found when it met one is kept."""
    process = multiprocessing.get_context("fork")
    ours, theirs = process.Pipe(duplex=False)
    row = {**row, "reason": ""}
    child = process.Process(target=examine, args=(name, row, theirs))
    child.start()
    theirs.close()
    try:
        while True:
            row = ours.recv()
    except EOFError:
        child.join()
    if child.exitcode:
        row["reason"] = row["reason"] or f"broken off after {SECONDS} s"
    return row


@torch.no_grad()
def examine(name: str, row: dict[str, Any], result: Connection) -> None:
    """Sends the row of a network, again and again as it fills up."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    try:
        torch.manual_seed(0)
        model, size = build(name), FAMILIES[name]
        settle(model, pictures(64, size))
        image = pictures(2, size)
        canonical = trace(model, image)
        row["trace"] = True
        for number, level in enumerate(LEVELS):
            if number == len(row["levels"]):
                row["levels"].append({})
            found = row["levels"][number]
            measure(canonical, image[:1], level / 255, found, partial(result.send, row))
            if not best(found) <= MOST:
                break
    except (RobnetError, MemoryError, RuntimeError) as error:
        short = isinstance(error, MemoryError) or "allocate memory" in str(error)
        row["reason"] = f"more than {MEMORY >> 30} GiB" if short else str(error).splitlines()[0]
    result.send(row)


def measure(
    canonical: torch.fx.GraphModule,
    image: Tensor,
    eps: float,
    found: dict[str, Any],
    send: Callable[[], None],
) -> None:
    """The ratios at one eps, plain, with symbols and of parts of the box, added to what is found and sent."""
    spec = torch.eye(10).unsqueeze(0)
    net = BoundedModel(canonical, Problem(BiasField(1, eps / 10)))
    near = reach(sampled(net, image))
    net.set_eps(eps)
    logits = sampled(net, image)
    found["linear"] = reach(logits) / (10 * near)
    for kind, symbols in [*((str(symbols), symbols) for symbols in SYMBOLS), ("cut", "all")]:
        if kind in found or (kind == "cut" and best(found) <= MOST):
            continue
        start = time.process_time()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            few = kind == "cut" and straight(dependents(net.perturbed))
            bounded = net.by(net.method, OrNone(FEW) if few else symbols)
            lower, upper, count = torch.full((1, 10), math.inf), torch.full((1, 10), -math.inf), 0
            left = [(*part, 0) for part in parts(bounded, PARTS if kind == "cut" else 1)]
            least = 0  # halvings before a part is bounded: one less than the last part that was narrow had
            while left:
                center, radius, halved = left.pop()
                if halved >= least:
                    low, high = evaluate(bounded.bounds, 1, image, spec, center, radius)
                    beyond = (high - logits.amax(0)).mean().maximum((logits.amin(0) - low).mean())
                    if kind != "cut" or float(beyond) <= NARROW * reach(logits):
                        lower, upper, count = lower.minimum(low), upper.maximum(high), count + 1
                        least = halved - 1
                        continue
                left += [(*half, halved + 1) for half in halves(center, radius)]
        slack = 1e-9 * (1 + logits.abs().amax())
        # A bound that is NaN or infinite claims nothing, so it is not unsound; it certifies nothing either.
        run: dict[str, Any] = {
            "parts": count,
            "ratio": float((upper - lower).mean()) / reach(logits),
            "seconds": round(time.process_time() - start, 1),
            "sound": not bool(((logits < lower - slack) | (logits > upper + slack)).any()),
            "short": next((str(each.message) for each in said if "memory held" in str(each.message)), ""),
        }
        found[kind] = run
        send()


def parts(net: BoundedModel, count: int) -> list[tuple[Tensor, Tensor]]:
    """The box in so many parts along the constant coefficient, as graphs take boxes."""
    radius, made = net.radius.clone(), []
    radius[0] /= count
    for number in range(count):
        center = net.center.clone()
        center[0] += (2 * number + 1 - count) * radius[0]
        made.append((center.unsqueeze(0), radius.unsqueeze(0)))
    return made


def halves(center: Tensor, radius: Tensor) -> list[tuple[Tensor, Tensor]]:
    """A box cut in two along its widest coefficient."""
    half = torch.zeros_like(radius)
    half[0, radius.argmax()] = radius.amax() / 2
    return [(center - half, radius - half), (center + half, radius - half)]


def best(level: dict[str, Any]) -> float:
    """The least ratio with symbols that was found at a level."""
    ratios = [level[kind]["ratio"] for kind in ("all", "cut") if kind in level]
    return min((ratio for ratio in ratios if not math.isnan(ratio)), default=math.inf)


def build(name: str) -> nn.Module:
    """A torchvision classifier of ten classes with random weights; a head that starts at zero gets some, since logits
    that never move say nothing about bounds."""
    extra = {"init_weights": True, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    extra |= {"image_size": FAMILIES[name]} if name.startswith("vit") else {}
    model: nn.Module = getattr(torchvision.models, name)(num_classes=10, **extra)
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and not bool(layer.weight.any()):
            nn.init.normal_(layer.weight, std=0.02)
    return model


def pictures(count: int, size: int) -> Tensor:
    """Random images `[count, 3, size, size]` in [0, 1] with what photographs have and white noise has not: differences
    in brightness, and amplitudes that fall with the frequency f as 1/f (Field 1987)."""
    across, down = torch.fft.fftfreq(size).unsqueeze(1), torch.fft.rfftfreq(size)
    frequency = (across**2 + down**2).sqrt().clamp(min=1 / size)

    def texture(channels: int) -> Tensor:
        waves = torch.fft.rfft2(torch.randn(count, channels, size, size)) / frequency
        made = torch.fft.irfft2(waves, s=(size, size))
        made = made - made.mean((2, 3), keepdim=True)
        return made / made.std((2, 3), keepdim=True)

    brightness = 0.2 + 0.6 * torch.rand(count, 1, 1, 1)
    return (brightness + 0.2 * texture(1) + 0.06 * texture(3)).clamp(0, 1)


def settle(model: nn.Module, images: Tensor) -> None:
    """Batch-norm statistics as after training: those of a batch, so that activations keep their size."""
    with _momentum(model):
        model.train()
        model(images)
    model.eval()


@contextmanager
def _momentum(model: nn.Module) -> Iterator[None]:
    layers = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    before = [layer.momentum for layer in layers]
    for layer in layers:
        layer.momentum = 1.0
    yield
    for layer, momentum in zip(layers, before, strict=True):
        layer.momentum = momentum


def sampled(net: BoundedModel, image: Tensor) -> Tensor:
    """Logits `[SAMPLES, classes]` at corners and inner points of the box, the same ones at every eps."""
    t = torch.rand(SAMPLES, len(net.center), generator=torch.Generator().manual_seed(1)) * 2 - 1
    t[::2] = t[::2].sign()
    logits: Tensor = net.perturbed(net.center + net.radius * t, image.expand(SAMPLES, -1, -1, -1))
    return logits


def reach(logits: Tensor) -> float:
    """The mean range of logits."""
    return float((logits.amax(0) - logits.amin(0)).mean())


def tight(rows: list[dict[str, Any]], family: dict[str, int], level: int) -> str:
    """How many rows of a family have a ratio with symbols of at most `MOST` at a level: in one box, in parts as well,
    of how many."""
    levels = [row["levels"][level] for row in rows if row["name"] in family and len(row["levels"]) > level]
    whole = sum(found.get("all", {}).get("ratio", math.inf) <= MOST for found in levels)
    measured = sum(row["name"] in family for row in rows)
    return f"{whole} in one box, {sum(best(found) <= MOST for found in levels)} with the cut, of {measured}"


def document(rows: list[dict[str, Any]]) -> str:
    """The page, in Markdown."""
    columns = ("ratio", "with symbols", "seconds", "cut", "seconds", "linear")
    left = ", ".join(sorted(set(FAMILIES) - {row["name"] for row in rows}))
    missing = [f"Not measured yet: {left}.", ""] if left else []
    lines = [
        "# Coverage",
        "",
        "Made by `python -m tests.benchmarks.coverage --out docs/coverage.md`. torchvision's classifiers with random",
        "weights and batch-norm statistics of a batch of random pictures (whose amplitudes fall with the frequency as",
        "those of photographs), in float64 on one thread, bounded on one small picture against a first-order field at",
        "eps 0.1 and 1, in pixel levels of 255.",
        "",
        f"*ratio*: mean width of RSIP-SSIP's logit bounds over the range of the logits on {SAMPLES} sampled fields;",
        '*with symbols*: the same with `symbols="all"`, and *seconds* of processor time for it. *cut*: the same where',
        f"that is above {MOST:g}, with the box in parts, {PARTS} along its constant coefficient (fifteen times as wide",
        "as the others), and halves of those along their widest one where a part is still too wide: a logit is between",
        "the least and the greatest bound of all parts. A part of a piecewise linear network keeps",
        f"{FEW:,} symbols, or none where it has more, and is halved. *linear*: the sampled range over ten times that",
        "at a tenth of the eps, 1 where the network is linear in the field; where it is far from 1, no line can be",
        f"tight. What is above {MOST:g} at 0.1 in both ways is not tried at 1. A network had {MEMORY >> 30} GiB of",
        "addresses; where its time was up, that is said, and a longer run would go on from there.",
        "",
        f"A ratio of at most {MOST:g} with symbols, of the networks measured:",
        "",
        "| | at 0.1 | at 1 |",
        "|---|---|---|",
        f"| piecewise linear | {tight(rows, PIECEWISE, 0)} | {tight(rows, PIECEWISE, 1)} |",
        f"| smooth or gated | {tight(rows, SMOOTH, 0)} | {tight(rows, SMOOTH, 1)} |",
        "",
        *GOAL,
        "",
        *missing,
        *NOISE,
        "",
        f"| network | input | trace | sound | {' | '.join(f'0.1: {c}' for c in columns)} | "
        f"{' | '.join(f'1: {c}' for c in columns)} | |",
        f"|---|---|---|---|{'---|' * (2 * len(columns) + 1)}",
    ]
    for row in rows:
        size, runs = FAMILIES[row["name"]], [found for level in row["levels"] for found in level.values()]
        runs = [run for run in runs if isinstance(run, dict)]
        sound = "" if not runs else "yes" if all(run["sound"] for run in runs) else "**no**"
        cells = []
        for level in [*row["levels"], {}, {}][:2]:
            plain, whole, cut = (level.get(kind, {}) for kind in ("0", "all", "cut"))
            of_symbols = (each.get(figure) for each in (whole, cut) for figure in ("ratio", "seconds"))
            figures = plain.get("ratio"), *of_symbols, level.get("linear")
            texts = ["" if figure is None else f"{figure:.3g}" for figure in figures]
            if cut:
                texts[3] += f" in {cut['parts']}"
            cells += texts
        short = next((run["short"].partition(" from ")[0] for run in runs if run["short"]), "")
        reason = "; ".join(filter(None, (row["reason"], short.removeprefix('symbols="all": '))))
        trace_ = "yes" if row["trace"] else "**no**"
        lines.append(f"| {row['name']} | {size}x{size} | {trace_} | {sound} | {' | '.join(cells)} | {reason} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
