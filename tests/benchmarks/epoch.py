"""How long an epoch of RSIP-SSIP training takes: the paper's figure of merit, by the trainer that users run.

    python -m tests.benchmarks.epoch [--networks dm-medium dm-large mri] [--device cuda] [--images 50000] [--batch 256]
                                     [--ways float32 tf32 bf16 "bf16 compiled"] [--peer] [--json epoch.json]

Random images of the network's size, augmented, alpha 1, eps 40/255, order 3; for the MRI network as many as its
training set has. First an epoch of standard training, so that there are classes to hold on to, then two robust epochs
at the full eps: one without a guess who is active, which where bounds are compiled has the time of that too, and the
one that is asked for. A *way* is the precision of training steps, and whether their bounds are compiled. *rate* is the
share of one large matrix product's rate, in that precision, which convolutions and products reach, counted on one step
with a guess. In the end steps of DM-Medium as in `speed.py`, with `--peer` against auto_LiRPA. With the default options
all is meant to take less than eight minutes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from robnet_fx import BiasField, bound
from robnet_fx.machine.precision import PRECISIONS
from robnet_fx.train import Phase, Recipe, train
from robnet_fx.train.gradients import accumulate
from robnet_fx.zoo.models import architecture
from tests.benchmarks import speed

ORDER, EPS = 3, 40 / 255
WAYS = {"dm-medium": ["tf32", "bf16", "bf16 compiled"], "dm-large": ["tf32"], "mri": ["tf32", "bf16"]}
MRI_IMAGES = 5712
PLAIN, MIX = ["rsip-ssip bounds", "rsip-ssip step"], ["rsip-ssip mix bounds", "rsip-ssip mix"]


class Clock:
    """A progress that notes when each step ends."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.times: list[float] = []

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Clock]:
        yield self

    def advance(self, steps: int = 1, **figures: float | str) -> None:
        self.times.append(speed.now(self.device))


def main() -> None:
    options = parse()
    device = torch.device(options.device)
    start = time.perf_counter()
    document: dict[str, Any] = {"torch": torch.__version__, "device": speed.device_name(device), "epochs": []}
    rates = {way: speed.matrix_rate(device, way) for way in PRECISIONS}
    document["matrix_gflops"] = {way: round(rate) for way, rate in rates.items()}
    console = Console()
    console.print(document)
    for name in options.networks:
        for way in options.ways or WAYS.get(name, ["tf32"]):
            row = measure(name, way, options, device)
            row["rate"] = row["gflop"] / row["seconds"] / rates[way.split()[0]]
            document["epochs"].append(row)
            console.print(row)  # at once: the rest may be cut off
    console.print(table(document["epochs"]))
    document["steps"] = []
    if not options.no_steps:
        document["steps"] = steps(options, rates[speed.precision_of(device)])
        console.print(speed.table(f"dm-medium, batch {options.batch}", document["steps"]))
    document["seconds"] = round(time.perf_counter() - start)
    console.print(f"{document['seconds']} s in all")
    if options.json:
        options.json.write_text(json.dumps(document, indent=1))


def measure(name: str, way: str, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """One network trained one way: seconds of an epoch with a guess, of one without, and of a standard one."""
    torch.manual_seed(0)
    entry = architecture(name)
    count = min(options.images, MRI_IMAGES) if name == "mri" else options.images
    labels = torch.randint(entry.classes, (count,))
    means = torch.rand(entry.classes, *entry.input_shape)
    images = torch.empty(count, *entry.input_shape, dtype=torch.uint8)
    for own in torch.arange(count).split(1000):
        images[own] = (255 * (0.8 * means[labels[own]] + 0.2 * torch.rand(len(own), *entry.input_shape))).byte()
    net = bound(entry.build(), BiasField(ORDER, EPS), example=images[:2].float() / 255).to(device)
    precision, _, compiled = way.partition(" ")
    if compiled:
        net.compile()
    phases = Phase("standard", 1, 1e-3, 0, 0, robust=False), Phase("robust", 2, 1e-5)
    recipe = Recipe(phases, batch_size=options.batch, augment=True, precision=precision)
    clock = Clock(device)
    history = train(net, images, labels, recipe, progress=clock)
    steps = -(-count // options.batch)
    ends = clock.times[0], *clock.times[steps::steps]
    standard, first, robust = (end - start for start, end in itertools.pairwise(ends))
    last = history.epochs[-1]
    net.set_eps(EPS)
    batch = (images[: options.batch].float() / 255).to(device), labels[: options.batch].to(device)
    plain = bound(net.model, BiasField(ORDER, EPS), example=batch[0][:2]).to(device)  # a compiled graph hides its work
    guess = accumulate(plain, *batch, alpha=1.0).active
    with FlopCounterMode(display=False) as counter:
        accumulate(plain, *batch, alpha=1.0, likely=guess)
    figures = {"network": name, "way": way, "images": count, "batch": options.batch, "seconds": robust}
    figures |= {"without_guess": first, "standard": standard, "clean": last["clean"], "certified": last["certified"]}
    return figures | {"gflop": counter.get_total_flops() * steps / 1e9}


def steps(options: argparse.Namespace, rate: float) -> list[dict[str, Any]]:
    """Rows of `speed.py` for DM-Medium: the plain step and the mix."""
    peers = [speed.PEER + "bounds", speed.PEER + "step"], [speed.PEER + "mix bounds", speed.PEER + "mix"]
    groups = [
        ["standard step", *own, *(peer if options.peer else [])] for own, peer in zip((PLAIN, MIX), peers, strict=True)
    ]
    turns = argparse.Namespace(threads=0, batch=options.batch, device=options.device, repeat=3)
    rows = [row for group in groups for row in speed.take_turns("dm-medium", group, turns)]
    return [row | {"share": row["gflop"] / row["seconds"] / rate} for row in rows]


def table(rows: list[dict[str, Any]]) -> Table:
    shown = Table(title="RSIP-SSIP epochs", padding=(0, 0))
    for column in ("network", "way", "images", "s", "without guess", "standard", "clean", "certified", "rate"):
        shown.add_column(column, justify="right")
    for row in rows:
        seconds = [f"{row[name]:.1f}" for name in ("seconds", "without_guess", "standard")]
        shares = [f"{row[name]:.0%}" for name in ("clean", "certified", "rate")]
        shown.add_row(row["network"], row["way"], str(row["images"]), *seconds, *shares)
    return shown


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["dm-medium", "dm-large", "mri"])
    parser.add_argument("--ways", nargs="+", help="for all networks (default: those of WAYS)")
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--no-steps", action="store_true", help="epochs only")
    parser.add_argument("--peer", action="store_true", help="auto_LiRPA's steps too, which must be importable")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
