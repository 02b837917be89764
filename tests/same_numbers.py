"""Whether two versions of robnet-fx compute the same numbers: store those of one, compare those of the other.

    OMP_NUM_THREADS=1 PYTHONPATH=OLD python OLD/tests/same_numbers.py store FILE
    OMP_NUM_THREADS=1 PYTHONPATH=NEW python NEW/tests/same_numbers.py compare FILE

In float64 and on one thread, for every network and method: margins, two-sided bounds of random rows, intermediate
bounds, and but for the methods that work by rows the gradients of the margins in the parameters and the images. The
networks are those of the zoo with random weights, the trained digits classifier, the ONNX files in the folder that
`ROBNET_FX_MODELS` names, and random graphs. A difference is |old - new| / (1 + |old|); the exit code is 1 where one
exceeds the tolerance. Of a tensor with more than `KEPT` numbers a fixed sample, the mean and the maximum are kept.
Both commands take `--jobs 2`, and `--only NAME` for the cases that have this in their name.

A relaxation chooses its lines by comparing bounds, and where two of them are equal but for rounding a harmless change
can tip the choice. Such a difference is called a flip and names the node whose bounds agree while the choice differs.
Seen are the choices of ReLU and its relatives, of clamp and of max pooling, not those among the slopes of curved
functions. A flip fails the comparison too: look at it. Files depend on the machine and on the version of torch.
"""

from __future__ import annotations

import argparse
import math
import os
import pickle
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import onnx
import torch
from rich.console import Console
from torch import Tensor, fx, nn
from torch.nn import functional as F

import robnet_fx
from robnet_fx.zoo.export import export
from robnet_fx.zoo.models import REGISTRY

METHODS = ("ibp", "ssip", "rsip-ibp", "rsip-ssip", "rsip")
BY_ROWS = METHODS[4:]
GRAPHS = 200  # random ones
KEPT = 20_000
SLOW = "too slow"


# --- random graphs --------------------------------------------------------------------------------------------------

Shape = tuple[int, int, int]
Step = tuple[Callable[[Shape], nn.Module], Callable[[Any, Tensor, Tensor], Tensor]]


def _plain(f: Callable[[Tensor, Tensor], Tensor]) -> Step:
    return lambda s: nn.Identity(), lambda m, x, y: f(x, y)


def _layer(make: Callable[[Shape], nn.Module]) -> Step:
    return make, lambda m, x, y: m(x)


# Steps keep the shape. Each makes its layer, which it calls `m`; `x` is a late value, `y` any value.
STEPS: tuple[Step, ...] = (
    _layer(lambda s: nn.Conv2d(s[0], s[0], 3, padding=1)),
    _layer(lambda s: nn.Conv2d(s[0], s[0], 2, padding=1, dilation=2, groups=s[0], bias=False)),
    (lambda s: nn.Linear(math.prod(s), math.prod(s)), lambda m, x, y: m(x.flatten(1)).reshape(x.shape)),
    _layer(lambda s: nn.BatchNorm2d(s[0])),
    _layer(lambda s: nn.LayerNorm(s[2])),
    _layer(lambda s: nn.LayerNorm(s)),
    (lambda s: nn.Conv2d(2 * s[0], s[0], 1), lambda m, x, y: m(torch.cat([x, y], 1))),
    *[_plain(lambda x, y: x.relu())] * 3,
    _plain(lambda x, y: F.leaky_relu(x, 0.1)),
    _plain(lambda x, y: F.leaky_relu(x, -0.5)),
    _plain(lambda x, y: x.sigmoid()),
    _plain(lambda x, y: x.tanh()),
    _plain(lambda x, y: F.gelu(x)),
    _plain(lambda x, y: F.gelu(x, approximate="tanh")),
    _plain(lambda x, y: F.silu(x)),
    _plain(lambda x, y: F.max_pool2d(x, 3, 1, 1)),
    _plain(lambda x, y: F.interpolate(F.max_pool2d(x, 2), scale_factor=2.0)),
    _plain(lambda x, y: F.avg_pool2d(x, 3, 1, 1)),
    _plain(lambda x, y: F.avg_pool2d(F.pad(x, (1, 1, 1, 1), "reflect"), 3, 1)),
    *[_plain(lambda x, y: x + y)] * 2,
    _plain(lambda x, y: y - 0.7 * x.mean((-1, -2), keepdim=True)),
    _plain(lambda x, y: x * y.sigmoid()),
    _plain(lambda x, y: x * y),
    _plain(lambda x, y: x.softmax(1)),
    _plain(lambda x, y: y * x.flatten(2).softmax(-1).reshape(x.shape)),
    _plain(lambda x, y: ((x.flatten(2) @ y.flatten(2).mT).softmax(-1) @ y.flatten(2)).reshape(x.shape)),
    _plain(lambda x, y: x.abs()),
    _plain(lambda x, y: x.clamp(-0.4, 0.5)),
    _plain(lambda x, y: (0.5 * x).exp()),
    _plain(lambda x, y: torch.maximum(x, y)),
    _plain(lambda x, y: torch.cat([y[:, :1], x[:, 1:]], 1)),
)


class RandomGraph(nn.Module):
    """A few random steps between a layer that reads the image and a head; values are used again."""

    def __init__(self, image: tuple[int, ...], shape: Shape, draw: random.Random) -> None:
        super().__init__()
        flat = len(image) == 1
        self.shape, self.steps, units = shape, [], math.prod(shape)
        self.first = nn.Linear(image[0], units) if flat else nn.Conv2d(image[0], shape[0], 3, padding=1)
        self.layers = nn.ModuleList()
        for _ in range(draw.randint(2, 8)):
            make, run = draw.choice(STEPS)
            self.layers.append(make(shape))
            self.steps.append((run, draw.randint(0, 1), draw.randint(0, 4)))
        hidden = draw.randint(3, 8)
        self.pool = draw.choice([nn.Identity(), nn.MaxPool2d(2), nn.AvgPool2d(2)])
        units = units if isinstance(self.pool, nn.Identity) else units // 4
        bent = draw.choice([nn.ReLU, nn.ReLU, nn.Tanh, nn.GELU])()
        self.head = nn.Sequential(
            nn.Flatten(), nn.Linear(units, hidden), bent, nn.Linear(hidden, draw.choice([1, 2, 3, 3, 5]))
        )
        for name, buffer in self.named_buffers():
            if name.endswith("running_var"):
                buffer.uniform_(0.5, 2)
            elif name.endswith("running_mean"):
                buffer.uniform_(-0.3, 0.3)

    def forward(self, x: Tensor) -> Tensor:
        values = [self.first(x).reshape(-1, *self.shape)]
        for layer, (run, near, far) in zip(self.layers, self.steps, strict=True):
            values.append(run(layer, values[-1 - near % len(values)], values[-1 - far % len(values)]))
        return self.head(self.pool(values[-1]))


# --- networks and what perturbs them --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A network, the shape of its images, and the arguments that `bound` takes beside the method."""

    image: tuple[int, ...]
    make: Callable[[], nn.Module | Path]
    options: dict[str, Any]
    methods: tuple[str, ...] = METHODS
    images_by_rows: int = 1

    def bound(self, method: str) -> tuple[robnet_fx.BoundedModel, Tensor]:
        """The network in float64, and its images."""
        model = self.make()
        dtype = torch.float64 if isinstance(model, nn.Module) else torch.float32
        images = torch.rand(2, *self.image, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        torch.manual_seed(0)
        net = robnet_fx.bound(model, method=method, example=images.to(dtype), **self.options)
        return net.double(), images[: self.images_by_rows] if method in BY_ROWS else images


def random_subject(seed: int) -> Subject:
    """A random graph under a random perturbation, by half of the methods: tracing is what takes the time."""
    draw = random.Random(seed)
    shape = (draw.randint(2, 4), *draw.choice([(4, 4), (2, 6), (4, 6)]))
    image = draw.choice([(1, *shape[1:]), (3, *shape[1:]), (3, *shape[1:]), (draw.randint(5, 12),)])
    spatial = 1 if len(image) == 1 else 2
    order = draw.randint(0, 3)
    rest = (order + 1) ** spatial - 1
    boxes = [(0.8, 1.1), *[(-0.02, 0.03)] * rest], [(-0.1, 0.05), *[(-0.01, 0.02)] * rest]
    parts: tuple[Any, Any] = draw.choice(
        [(True, False), (True, False), (False, True), (True, True), boxes, (boxes[0], False)]
    )
    eps = draw.choice([0.02, 0.1, 0.3])
    noise = draw.random() < 0.25
    options: dict[str, Any] = {
        "perturbation": robnet_fx.WhiteNoise(eps / 4) if noise else robnet_fx.BiasField(order, eps, *parts),
        "clip": draw.choice(["relu", "relu", "clamp", None]),
    }
    options |= draw.choice([{}, {}, {"mean": 0.4, "std": 0.25}])
    if len(image) > 1 and draw.random() < 0.3:
        options |= {"mean": [0.4, 0.5, 0.6][: image[0]], "std": [0.3, 0.2, 0.5][: image[0]]}

    def make() -> nn.Module:
        torch.manual_seed(seed)
        return RandomGraph(image, shape, random.Random(seed)).double().eval()

    return Subject(image, make, options, METHODS[seed % 2 :: 2], images_by_rows=2)


def zoo_subject(name: str) -> Subject:
    """A network of the zoo with random weights."""

    def make() -> nn.Module:
        torch.manual_seed(0)
        return REGISTRY[name].build().double().eval()

    return Subject(REGISTRY[name].input_shape, make, {"perturbation": robnet_fx.BiasField(3, 40 / 255)})


def file_subject(path: Path) -> Subject:
    """An ONNX file; images are channels first, whatever its own input is."""
    tensor = onnx.load(path, load_external_data=False).graph.input[0].type.tensor_type
    shape = tuple(axis.dim_value for axis in tensor.shape.dim)[1:]
    image = (shape[2], *shape[:2]) if len(shape) == 3 and shape[2] in (1, 3) else shape
    return Subject(image, lambda: path, {"perturbation": robnet_fx.BiasField(3 if len(image) > 1 else 1, 0.02)})


def subjects(digits: Path) -> dict[str, Subject]:
    """Every network by its name. `digits` is the file of the trained classifier."""
    found = {f"zoo {name}": zoo_subject(name) for name in REGISTRY}
    found["digits trained"] = file_subject(digits)
    if folder := os.environ.get("ROBNET_FX_MODELS"):
        found |= {f"file {path.stem}": file_subject(path) for path in sorted(Path(folder).glob("*.onnx"))}
    return found | {f"random {seed:03d}": random_subject(seed) for seed in range(GRAPHS)}


# --- numbers --------------------------------------------------------------------------------------------------------

Reader = tuple[str, tuple[Any, ...]]  # an operation, and its arguments after the first
Bounds = tuple[str, Tensor, Tensor, list[tuple[Reader, Tensor]]]  # name, lower, upper, what each reader chooses


def kept(value: Tensor) -> Tensor:
    """A vector of the shape and the numbers, or of a sample of them with their mean and maximum."""
    flat, shape = value.detach().double().flatten(), torch.tensor([value.dim(), *value.shape]).double()
    if len(flat) > KEPT:
        index = torch.randint(len(flat), (KEPT,), generator=torch.Generator().manual_seed(2))
        flat = torch.cat([flat[index], flat.mean().reshape(1), flat.amax().reshape(1)])
    return torch.cat([shape, flat])


def readers(net: robnet_fx.BoundedModel) -> dict[str, list[Reader]]:
    """The operations that choose lines by the bounds of a value, by the value's name."""
    found: dict[str, list[Reader]] = {}
    for node in net.perturbed.graph.nodes:
        kind = getattr(node.target, "__name__", "").split(".")[0]
        if node.op == "call_function" and kind in CHOICES:
            args = (arg for arg in node.args[1:] if not isinstance(arg, fx.Node))
            plain = tuple(list(arg) if isinstance(arg, list) else arg for arg in args)
            found.setdefault(node.args[0].name, []).append((kind, plain))
    return found


def kinked(lower: Tensor, upper: Tensor, *_: Any) -> list[Tensor]:
    return [lower < 0, upper > 0, upper > -lower]


def clamped(lower: Tensor, upper: Tensor, low: float | None = None, high: float | None = None) -> list[Tensor]:
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    start, stop = lower.clamp(min=low), upper.clamp(max=high)
    sides = [upper - start > start - lower, stop - lower > upper - stop]
    return [*sides, lower < low, upper > low, lower < high, upper > high]


def pooled(lower: Tensor, upper: Tensor, *args: Any) -> list[Tensor]:
    return [F.max_pool2d(end, *args, return_indices=True)[1] for end in (lower, upper)]


CHOICES: dict[str, Callable[..., list[Tensor]]] = {
    **dict.fromkeys(("relu", "leaky_relu", "prelu", "_prelu_kernel", "abs"), kinked),
    "clamp": clamped,
    "clamp_min": clamped,
    "clamp_max": lambda lower, upper, high: clamped(lower, upper, None, high),
    "hardtanh": lambda lower, upper, low=-1.0, high=1.0: clamped(lower, upper, low, high),
    "relu6": lambda lower, upper: clamped(lower, upper, 0.0, 6.0),
    "max_pool2d": pooled,
}


def choices(reader: Reader, lower: Tensor, upper: Tensor) -> Tensor:
    """What an operation chooses, unit by unit, as small whole numbers."""
    kind, args = reader
    made = torch.stack([choice.to(torch.int32) for choice in CHOICES[kind](lower, upper, *args)])
    return made if kind == "max_pool2d" else made.to(torch.bool)


def numbers(net: robnet_fx.BoundedModel, images: Tensor, gradients: bool) -> dict[str, Tensor]:
    """Margins, bounds and gradients. Parameters go by shape and value, for their names may change."""
    images = images.clone().requires_grad_(gradients)
    labels = torch.arange(len(images)) % 2
    with torch.set_grad_enabled(gradients):
        margins = net.margins(images, labels)
    found = {"margins": kept(margins)}
    if gradients:
        parameters = sorted(net.parameters(), key=lambda p: (tuple(p.shape), p.flatten()[:50].tolist()))
        total = margins[margins.isfinite()].sum()
        values = torch.autograd.grad(total, [images, *parameters], materialize_grads=True)
        for index, value in enumerate(values):
            found[f"gradient {index} {list(value.shape)}" if index else "gradient of the images"] = kept(value)
    spec = torch.randn(len(images), 3, margins.shape[1], generator=torch.Generator().manual_seed(3)).double()
    with torch.no_grad():
        found["lower bounds"], found["upper bounds"] = map(kept, net.bounds(images, spec))
    return found


def intermediate(net: robnet_fx.BoundedModel, images: Tensor, known: list[Bounds] | None) -> list[Bounds]:
    """The intermediate bounds; whose choices matter is known, or read from the network's graph."""
    with torch.no_grad():
        table = net.intermediate(images)
    if known is None:
        of = readers(net)
    else:  # by position where values have other names now
        names = list(table) if {name for name, *_ in known} != set(table) else [name for name, *_ in known]
        of = {name: [reader for reader, _ in made] for name, (*_, made) in zip(names, known, strict=False)}
        table = {name: table[name] for name in names}
    return [
        (name, kept(lower), kept(upper), [(reader, choices(reader, lower, upper)) for reader in of.get(name, [])])
        for name, (lower, upper) in table.items()
    ]


class TooSlow(BaseException):
    """No `Exception`, so that nothing below catches it."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Stop what takes the processor longer, between two operations; 0 is no limit."""

    def stop(*_: Any) -> None:
        raise TooSlow

    signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def compute(subject: Subject, method: str, seconds: float = 0, known: list[Bounds] | None = None) -> dict[str, Any]:
    """What is stored of one case: "numbers" and "bounds", or "missing" with the reason; and the "seconds" it took."""
    start = time.process_time()
    try:
        net, images = subject.bound(method)
        with limit(seconds * len(images)):
            made = {"numbers": numbers(net, images, method not in BY_ROWS), "bounds": intermediate(net, images, known)}
    except TooSlow:
        made = {"missing": f"{SLOW}: stopped at {seconds:g} s an image"}
    except Exception as error:  # a refusal is stored too: the other version must refuse as well
        made = {"missing": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
    return made | {"seconds": time.process_time() - start}


# --- comparison -----------------------------------------------------------------------------------------------------


def difference(old: Tensor, new: Tensor) -> float:
    """The largest |old - new| / (1 + |old|); NaN equals NaN, infinity itself."""
    if old.shape != new.shape:
        return math.inf
    gap = ((old - new).abs() / (1 + old.abs())).nan_to_num(math.inf, math.inf)
    return float(torch.where((old == new) | (old.isnan() & new.isnan()), 0.0, gap).max()) if len(old) else 0.0


def reason(old: list[Bounds], new: list[Bounds], tolerance: float) -> tuple[bool, str]:
    """Whether a difference comes from a flip, and where it begins among the intermediate bounds."""
    for (_, *before, chose), (name, *after, chooses) in zip(old, new, strict=False):
        gap = max(difference(a, b) for a, b in zip(before, after, strict=True))
        if gap > tolerance:
            return False, f"from {name} on, whose bounds differ by {gap:.1e}"
        for ((kind, _), a), (_, b) in zip(chose, chooses, strict=True):
            if not torch.equal(a, b):
                return True, f"flip: {kind} of {name} chooses otherwise in {int((a != b).any(0).sum())} units"
    return False, "intermediate bounds agree"


def compare(old: dict[str, Any], new: dict[str, Any], tolerance: float) -> tuple[float, bool, str]:
    """The largest difference of a case, whether it is a flip, and what there is to say."""
    if "missing" in old or "missing" in new:
        same = old.get("missing", "").split(":")[0] == new.get("missing", "").split(":")[0]
        return 0.0 if same else math.inf, False, f"{old.get('missing', 'numbers')} / {new.get('missing', 'numbers')}"
    if old["numbers"].keys() != new["numbers"].keys() or len(old["bounds"]) != len(new["bounds"]):
        return math.inf, False, "not the same values are bounded, or not the same parameters have gradients"
    gaps = {name: difference(value, new["numbers"][name]) for name, value in old["numbers"].items()}
    for (name, *before, _), (_, *after, _) in zip(old["bounds"], new["bounds"], strict=True):
        gaps[f"bounds of {name}"] = max(difference(a, b) for a, b in zip(before, after, strict=True))
    worst = max(gaps, key=lambda name: gaps[name])
    if gaps[worst] <= tolerance:
        return gaps[worst], False, worst if gaps[worst] else ""
    flip, why = reason(old["bounds"], new["bounds"], tolerance)
    return gaps[worst], flip, f"{worst}; {why}"


# --- command line ---------------------------------------------------------------------------------------------------


@dataclass
class Session:
    """What a process knows: the options, every network by its name, and the file where numbers are compared."""

    options: argparse.Namespace
    subjects: dict[str, Subject]
    stored: dict[str, Any]


_session: Session


def begin(options: argparse.Namespace) -> None:
    """Prepare a process: networks are made anew in each."""
    global _session
    torch.set_num_threads(1)
    stored = torch.load(options.file, weights_only=False)["cases"] if options.command == "compare" else {}
    _session = Session(options, subjects(options.digits), stored)


def stored_case(case: str) -> bytes:
    """What to store of a case, in bytes, for tensors between processes take up open files."""
    name, method = case.rsplit(" ", 1)
    return pickle.dumps(compute(_session.subjects[name], method, _session.options.seconds))


def compared_case(case: str) -> tuple[float, bool, str]:
    """How far a stored case is off."""
    name, method = case.rsplit(" ", 1)
    old, subject = _session.stored[case], _session.subjects.get(name)
    new = compute(subject, method, known=old.get("bounds")) if subject else {"missing": "its file is not here"}
    return compare(old, new, _session.options.tolerance)


def worked(options: argparse.Namespace, cases: list[str], work: Callable[[str], Any]) -> Iterator[tuple[str, Any]]:
    """Each case with what `work` makes of it, in order."""
    with ProcessPoolExecutor(options.jobs, get_context("spawn"), begin, (options,)) as pool:
        yield from zip(cases, pool.map(work, cases), strict=True)


def store(options: argparse.Namespace, say: Console) -> int:
    """Compute every case and write the file."""
    export("digits", options.digits)
    names = [f"{name} {method}" for name, each in subjects(options.digits).items() for method in each.methods]
    cases: dict[str, Any] = {}
    for case, made in worked(options, [name for name in names if options.only in name], stored_case):
        cases[case] = pickle.loads(made)
        say.print(f"{case}: {cases[case]['seconds']:.1f} s {cases[case].get('missing', '')}".rstrip())
    torch.save({"torch": torch.__version__, "digits": options.digits.read_bytes(), "cases": cases}, options.file)
    missing = [name for name, case in cases.items() if "missing" in case]
    say.print(f"{len(cases) - len(missing)} cases in {options.file}, {len(missing)} without numbers")
    return 0


def check(options: argparse.Namespace, say: Console) -> int:
    """Compute the cases of the file again and print how far each is off."""
    out = Console(soft_wrap=True, markup=False, highlight=False)
    stored = torch.load(options.file, weights_only=False)
    if stored["torch"] != torch.__version__:
        say.print(f"stored with torch {stored['torch']}, this is {torch.__version__}")
    options.digits.write_bytes(stored["digits"])  # training it anew may end elsewhere
    slow = {case for case, made in stored["cases"].items() if made.get("missing", "").startswith(SLOW)}
    chosen = [case for case in stored["cases"] if options.only in case and case not in slow]
    say.print(f"{len(chosen)} cases; {len(slow)} were too slow when the file was made")
    found: dict[str, tuple[float, bool, str]] = {}
    for case, (gap, flip, text) in worked(options, chosen, compared_case):
        found[case] = gap, flip, text
        out.print(f"{gap:.1e}  {case}  {text}".rstrip())
    flips = [case for case, (_, flip, _) in found.items() if flip]
    out.print(f"\n{len(found)} cases, {len(flips)} of them with a flip")
    for case in flips:
        out.print(f"{found[case][0]:.1e}  {case}  {found[case][2]}")
    for kind, names in (("but for flips", [case for case in found if case not in flips]), ("of all", list(found))):
        worst = max(names, key=lambda case: found[case][0], default="")
        out.print(f"largest difference {kind}: {found[worst][0] if worst else 0.0:.1e}  {worst}")
    return int(not found or any(gap > options.tolerance for gap, _, _ in found.values()))


def main() -> int:
    """Store or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["store", "compare"])
    parser.add_argument("file", type=Path)
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--seconds", type=float, default=10, help="store: the longest an image may take")
    parser.add_argument("--tolerance", type=float, default=1e-12)
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    say = Console(stderr=True, soft_wrap=True, markup=False, highlight=False)
    say.print(f"robnet_fx of {Path(robnet_fx.__file__).parent}")
    with tempfile.TemporaryDirectory() as folder:
        options.digits = Path(folder) / "digits.onnx"
        return (store if options.command == "store" else check)(options, say)


if __name__ == "__main__":
    sys.exit(main())
