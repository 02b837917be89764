"""What bounds cost: RSIP-SSIP and its relatives against a standard training step, and against the closest peer.

    python -m tests.benchmarks.speed [--networks dm-small dm-medium] [--batch 32] [--threads 2] [--repeat 3]
                                     [--symbols 16 64 256] [--peer] [--device cuda] [--json speed.json]

For each network: a standard training step (eager float32, Adam, channels last, which is its fastest), then for each
method the bounds of the margins without gradients and a whole training step on them, every sample active ("plain"), and
for RSIP-SSIP also the paper's operating point ("mix": 63 % certified, 23 % misclassified, 14 % active), and both with
bounds in bfloat16. With `--symbols` RSIP-SSIP also keeps so many error symbols, in the plain step and at the mix (of a
box that is as much larger as its bounds are tighter). Each contender lives in a process of its own, as training does,
and they take turns: *ratio* is (a), the time over the standard step's in the same turn, and each figure is the median
of the turns. *GFLOP* counts convolutions and products; *rate* is their share of what one large product reaches.
*memory* is the peak over what the process held before its first step.

With `--peer`, auto_LiRPA takes the same weights, images and box, if it can be imported: the field as a product with
per-sample weights, `method="forward+backward"`, same-slope relaxations (its faster and tighter choice here), upper
bounds only. It has no active samples; at the mix it gets the correct ones. It is run as it comes, and again ("memory
kept") with what `robnet_fx.machine.allocator` does for the standard step and ours.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from robnet_fx import BiasField, BoundedModel, bound
from robnet_fx.machine.allocator import keep_freed_memory
from robnet_fx.machine.precision import bounds_precision, training_precision
from robnet_fx.train.gradients import accumulate
from robnet_fx.zoo.models import architecture

METHODS = ("ibp", "rsip-ibp", "rsip-ssip")
CERTIFIED, MISCLASSIFIED = 0.63, 0.23
ORDER, EPS = 3, 5 / 255
PEER, KEPT = "auto_LiRPA ", ", memory kept"
KEEPING = " symbols"


class Bench:
    """One network with images of its size, and everything that can be timed on them."""

    def __init__(self, name: str, batch: int, device: str) -> None:
        torch.manual_seed(0)
        entry = architecture(name)
        self.network = entry.build().to(device)
        self.images = torch.rand(batch, *entry.input_shape, device=device)
        self.nets = {method: self.bounded(method) for method in METHODS}
        self.labels = self.nets["ibp"].logits(self.images).argmax(1)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=1e-9)  # the work of a step; the weights stay

    def bounded(self, method: str, symbols: int = 0) -> BoundedModel:
        example = self.images[:2]
        return bound(self.network, BiasField(ORDER, EPS), method, example=example, symbols=symbols).to(example.device)

    def standard(self) -> None:
        self.optimiser.zero_grad()
        self.network.train()
        cross_entropy(self.network(self.images), self.labels).backward()
        self.optimiser.step()

    def forward(self, method: str, chosen: Tensor | slice = slice(None)) -> Tensor:
        with torch.no_grad():
            return self.nets[method].margins(self.images[chosen], self.labels[chosen])

    def step(
        self, method: str, labels: Tensor | None = None, likely: Tensor | None = None, precision: str = "float32"
    ) -> Tensor:
        self.optimiser.zero_grad()
        labels = self.labels if labels is None else labels
        figures = accumulate(self.nets[method], self.images, labels, alpha=1.0, likely=likely, precision=precision)
        self.optimiser.step()
        return figures.active

    def mix(self) -> tuple[Tensor, Tensor]:
        """Labels of which a share is wrong, the box moved to where the share asked for is certified; who is active."""
        net, count = self.nets["rsip-ssip"], len(self.images)
        wrong, certified = round(MISCLASSIFIED * count), round(CERTIFIED * count)
        labels = self.labels.clone()
        labels[:wrong] = (labels[:wrong] + 1) % net.classes
        low, high = 0.0, EPS
        for _ in range(30):
            middle = (low + high) / 2
            net.set_eps(middle)
            with torch.no_grad():
                proved = (net.margins(self.images[wrong:], labels[wrong:]) < 0).all(1)
            low, high = (middle, high) if int(proved.sum()) >= certified else (low, middle)
            if int(proved.sum()) == certified:
                break
        active = torch.zeros(count, dtype=torch.bool, device=labels.device)
        active[wrong:] = ~proved
        return labels, active

    def contender(self, name: str) -> Callable[[], Any]:
        """What to time under a name of `contenders`."""
        if name == "standard step":
            self.network.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
            return self.standard
        if name.startswith(PEER):
            from tests.benchmarks import peer

            name = name.removeprefix(PEER).removesuffix(KEPT)
            return peer.contender(self, name, self.mix() if "mix" in name else None)
        precision = "bf16" if name.endswith("bf16") else "float32"
        if name.endswith(KEEPING):
            name, symbols = name.removesuffix(KEEPING).split(", ")
            self.nets["rsip-ssip"] = self.bounded("rsip-ssip", int(symbols))
        if "mix" not in name:
            method, what = name.removesuffix(", bf16").split(" ")
            return lambda: self.forward(method) if what == "bounds" else self.step(method, precision=precision)
        labels, active = self.mix()
        if name.endswith("bounds"):
            return lambda: self.forward("rsip-ssip", labels == self.labels)
        likely = active.logical_and(torch.tensor("no guess" not in name))
        return lambda: self.step("rsip-ssip", labels, likely, precision)


def contenders(peer: bool, symbols: Sequence[int] = ()) -> list[list[str]]:
    """The groups that take turns, each with a standard step of its own."""
    plain = [f"{method} {what}" for method in METHODS for what in ("bounds", "step")]
    plain += ["rsip-ssip step, bf16"]
    mix = ["rsip-ssip mix bounds", "rsip-ssip mix", "rsip-ssip mix, no guess", "rsip-ssip mix, bf16"]
    for kept in symbols:
        plain += [f"rsip-ssip {what}, {kept}{KEEPING}" for what in ("bounds", "step")]
        mix += [f"rsip-ssip mix, {kept}{KEEPING}"]
    if peer:
        plain += [PEER + "bounds", PEER + "step", PEER + "step" + KEPT]
        mix += [PEER + "mix bounds", PEER + "mix", PEER + "mix" + KEPT]
    return [["standard step", *plain], ["standard step", *mix]]


def main() -> None:
    options = parse()
    device = torch.device(options.device)
    if options.threads:
        torch.set_num_threads(options.threads)
    rate = matrix_rate(device, precision_of(device))
    document: dict[str, Any] = {"torch": torch.__version__, "device": device_name(device)}
    document |= {
        "threads": torch.get_num_threads(),
        "batch": options.batch,
        "matrix_gflops": round(rate, 1),
        "rows": [],
    }
    for name in options.networks:
        rows = [row for group in contenders(options.peer, options.symbols) for row in take_turns(name, group, options)]
        for row in rows:
            row["share"] = row["gflop"] / row["seconds"] / rate
        document["rows"] += rows
        where = f"{document['device']}, {document['threads']} threads, {rate:.0f} GFLOP/s in a matrix product"
        Console().print(table(f"{name}, batch {options.batch}, {where}", rows))
    if options.json:
        options.json.write_text(json.dumps(document, indent=1))


def take_turns(network: str, names: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each contender; the first is what the others' ratios stand over."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes = [], []
    for name in names:
        mine, theirs = spawn.Pipe()
        process = spawn.Process(target=compete, args=(theirs, network, name, options), daemon=True)
        process.start()
        mine.recv()  # ready: one at a time, so that none is disturbed by another's start
        pipes.append(mine)
        processes.append(process)
    turns = [[answer(pipe, True) for pipe in pipes] for _ in range(options.repeat)]
    rows = []
    for index, (name, pipe) in enumerate(zip(names, pipes, strict=True)):
        ratios = [turn[index] / turn[0] for turn in turns]
        row = {"network": network, "contender": name, "seconds": statistics.median(turn[index] for turn in turns)}
        row |= {"ratio": statistics.median(ratios), "ratios": [round(ratio, 2) for ratio in ratios]}
        rows.append(row | answer(pipe, False))
    for process in processes:
        process.join()
    return rows


def answer(pipe: Connection, message: object) -> Any:
    pipe.send(message)
    return pipe.recv()


def compete(pipe: Connection, network: str, name: str, options: argparse.Namespace) -> None:
    """One contender in a process of its own: seconds each time it is asked, in the end its other figures."""
    if options.threads:
        torch.set_num_threads(options.threads)
    if not name.startswith(PEER) or name.endswith(KEPT):
        keep_freed_memory()
    bench = Bench(network, options.batch, options.device)
    work, device = bench.contender(name), bench.images.device
    held = start_of_peak(device)
    with training_precision(precision_of(device)):
        with FlopCounterMode(display=False) as counter:
            last = work()
        pipe.send("ready")
        while pipe.recv():
            start = now(device)
            work()  # training repeats one step: its memory is at hand, and its caches are warm
            times = max(1, round(1 / (now(device) - start)))  # for a second
            start = now(device)
            for _ in range(times):
                last = work()
            pipe.send((now(device) - start) / times)
    figures = {"gflop": counter.get_total_flops() / 1e9, "memory": round(peak(device) - held)}
    pipe.send(figures | (tightness(last) if "bounds" in name else {}))


def tightness(margins: Tensor) -> dict[str, float]:
    """The mean upper margin (lower is tighter) and how many samples are certified, without the label's column."""
    margins = margins.detach()
    return {
        "mean_margin": float(margins[margins > -torch.inf].mean()),
        "certified": int((margins < 0).all(1).sum()),
    }


def precision_of(device: torch.device) -> str:
    """That of all contenders, the peer included: what training does by default."""
    return "tf32" if device.type == "cuda" else "float32"


def now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def matrix_rate(device: torch.device, precision: str = "float32") -> float:
    """GFLOP/s of one large product in a precision of training, the best of five."""
    size = 8192 if device.type == "cuda" else 2048
    a, b = torch.rand(2, size, size, device=device)
    seconds = []
    for _ in range(6):
        start = now(device)
        with training_precision(precision), bounds_precision(precision, device):
            a @ b
        seconds.append(now(device) - start)
    return 2 * size**3 / min(seconds) / 1e9


def start_of_peak(device: torch.device) -> float:
    """Forget the peak of memory so far; MiB held now."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated() / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what earlier work left behind must not serve this one
    Path("/proc/self/clear_refs").write_text("5")
    return resident("VmRSS")


def peak(device: torch.device) -> float:
    """MiB held at most since `start_of_peak`."""
    return torch.cuda.max_memory_allocated() / 2**20 if device.type == "cuda" else resident("VmHWM")


def resident(kind: str) -> float:
    """MiB this process holds now ("VmRSS") or has held at most ("VmHWM")."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines[kind].split()[0]) / 2**10


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"


def table(title: str, rows: list[dict[str, Any]]) -> Table:
    shown = Table(title=title, padding=(0, 0))
    for column in (
        "contender",
        "ms",
        "ratio",
        "repetitions",
        "GFLOP",
        "rate",
        "memory MiB",
        "mean margin",
        "certified",
    ):
        shown.add_column(column, justify="left" if column == "contender" else "right")
    for row in rows:
        ratios = " ".join(f"{r:g}" for r in row["ratios"])
        shown.add_row(
            row["contender"],
            f"{1000 * row['seconds']:.0f}",
            f"{row['ratio']:.1f}",
            ratios,
            f"{row['gflop']:.1f}",
            f"{row['share']:.0%}",
            str(row["memory"]),
            f"{row['mean_margin']:.4g}" if "mean_margin" in row else "",
            str(row.get("certified", "")),
        )
    return shown


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=["dm-small", "dm-medium", "dm-large", "mri"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads (default: as torch would)")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--symbols", type=int, nargs="*", default=[], help="budgets of error symbols to time as well")
    parser.add_argument("--peer", action="store_true", help="auto_LiRPA too, which must be importable")
    parser.add_argument("--json", type=Path, help="write the figures here too")
    return parser.parse_args()


if __name__ == "__main__":
    main()
