"""Images under a perturbation as instances for other verifiers: a network of the coefficients and a property of it."""

from __future__ import annotations

import copy
import csv
import io
from collections.abc import Sequence
from pathlib import Path

import onnx
import torch
from torch import Tensor

from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UnsupportedError, UsageError
from robnet_fx.frontend.onnx.runtime import TOLERANCE, OnnxSession, difference
from robnet_fx.frontend.unwrap import bare
from robnet_fx.images.pixels import to_float
from robnet_fx.interchange.export import exported
from robnet_fx.interchange.vnnlib import write_vnnlib
from robnet_fx.machine.files import write_atomically
from robnet_fx.verify.record import exact_box

_INPUTS = ("coefficients", "image")
INSTANCES = "instances.csv"
_POINTS = 8  # of the box, where onnxruntime must give the network's own logits


@torch.no_grad()
def write_instances(
    net: BoundedModel,
    images: Tensor,
    labels: Tensor,
    directory: Path | str,
    names: Sequence[str],
    *,
    seconds: float = 300,
) -> list[Path]:
    """Write each image's perturbed network `(coefficients [1, D]) -> logits [1, classes]` and its property to a folder.

    Of `images [N, *S]` (uint8, or float in [0, 1]) with `labels [N]`: NAME.onnx, NAME.vnnlib, whose property is that
    no coefficients of the box that `net` has now give another class a logit as large as the label's, and instances.csv
    with a row `onnx,vnnlib,timeout` for each, as the verification competition has it; `seconds` is the timeout. The
    network has image, perturbation, clip and normalisation in it and computes in float32; each file has been compared
    with `net` in onnxruntime at points of the box. Returns the paths written. Raises `UnsupportedError` where a network
    cannot be exported or onnxruntime gives other logits.
    """
    if not len(images) == len(labels) == len(names):
        raise UsageError(f"{len(images)} images, {len(labels)} labels and {len(names)} names do not belong together")
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    plain, (lower, upper) = _plain(net), _ends(net)
    about = f"{net.perturbation}, clip {net.clip}, normalisation {net.problem.normalisation}"
    template = _template(plain, to_float(images[:1], plain.center)) if len(images) else onnx.ModelProto()
    written, rows = [], io.StringIO()
    for image, label, name in zip(images, labels.tolist(), names, strict=True):
        network, stated = folder / f"{name}.onnx", folder / f"{name}.vnnlib"
        data = _of_image(template, plain, to_float(image.unsqueeze(0), plain.center), lower, upper)
        with write_atomically(network) as file:
            file.write(data)
        write_vnnlib(stated, lower, upper, label, net.classes, (f"{name}, label {label}", about))
        csv.writer(rows, lineterminator="\n").writerow([network.name, stated.name, f"{seconds:g}"])
        written += [network, stated]
    with write_atomically(folder / INSTANCES) as file:
        file.write(rows.getvalue().encode())
    return [*written, folder / INSTANCES]


def _plain(net: BoundedModel) -> BoundedModel:
    """`net` itself if it computes in float32 on the CPU, else a copy that does."""
    if net.center.dtype == torch.float32 and net.center.device.type == "cpu":
        return net
    return copy.deepcopy(net, {id(net.model): copy.deepcopy(bare(net.model))}).cpu().float()


def _ends(net: BoundedModel) -> tuple[Tensor, Tensor]:
    """The box's ends `[D]` in float64, rounded outwards; in float64's digits where that of `net` is its rounding."""
    center, radius = (part.double().cpu() for part in exact_box(net))
    infinity = torch.full_like(center, torch.inf)
    lower, upper = torch.nextafter(center - radius, -infinity), torch.nextafter(center + radius, infinity)
    return torch.where(radius > 0, lower, center), torch.where(radius > 0, upper, center)


def _template(net: BoundedModel, image: Tensor) -> onnx.ModelProto:
    """The perturbed network of any image, `(coefficients, image) -> logits`."""
    inputs = net.center.unsqueeze(0), image
    return exported(net.perturbed.eval(), inputs, _INPUTS, "logits", "the perturbed network")


def _of_image(template: onnx.ModelProto, net: BoundedModel, image: Tensor, lower: Tensor, upper: Tensor) -> bytes:
    """The file of one image, which is a constant in it; compared with `net` in the middle of the box and at points."""
    made = onnx.ModelProto.FromString(template.SerializeToString())
    (taken,) = [value for value in made.graph.input if value.name == _INPUTS[1]]
    made.graph.input.remove(taken)
    made.graph.initializer.append(onnx.numpy_helper.from_array(image.numpy(), taken.name))
    t = torch.rand(_POINTS, len(lower), generator=torch.Generator().manual_seed(0), dtype=lower.dtype)
    t[0] = 0.5
    points = (lower + (upper - lower) * t).to(image)
    ours = net(points, image.expand(_POINTS, *image.shape[1:]))
    worst = difference(ours, OnnxSession(made)(points))
    if not worst <= TOLERANCE:
        raise UnsupportedError(f"no instance is written: onnxruntime differs from PyTorch by {worst:.2g} (1 + |logit|)")
    return made.SerializeToString()
