"""One image of a model's data set (or a random one) with the model's bounds around it, for `inspect`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import robnet_fx
from robnet_fx.bounds.methods import Symbols
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.cli.opened import open_alone, open_judged, usual_method, usual_symbols
from robnet_fx.cli.options import Images, Model
from robnet_fx.errors import UsageError
from robnet_fx.frontend.onnx.header import read_header
from robnet_fx.graphs import ENTRY
from robnet_fx.images.pixels import to_float
from robnet_fx.inspect import Survey, code_lines
from robnet_fx.machine.files import write_atomically
from robnet_fx.perturbations.base import Perturbation
from robnet_fx.report.page import page
from robnet_fx.report.page.picture import png_uri
from robnet_fx.verify import Limits, certify
from robnet_fx.verify.record import about_problem
from robnet_fx.zoo import data as data_sets
from robnet_fx.zoo.reading import AS_STORED


@dataclass
class OneImage:
    """`image [1, *S]` in [0, 1]; `verdict` is its record of a certificate, None for a random image."""

    path: Path
    net: BoundedModel
    image: Tensor
    title: str
    facts: dict[str, str]
    document: dict[str, Any]
    verdict: dict[str, Any] | None

    def write_page(self, out: Path, found: Survey, more: dict[str, str]) -> None:
        """The page about the image, whole or not at all."""
        lines = code_lines(self.net.get_submodule("bounds"), {node.name for node in found.nodes})  # type: ignore[arg-type]
        facts = {**self.facts, **more, "image": self.title}
        facts.pop("device", None)
        word = None if self.verdict is None else (_word(self.verdict), bool(self.verdict["certified"]))
        text = page(self.path.name, facts, found, lines, self._pictures(), word)
        with write_atomically(out) as file:
            file.write(text.encode())

    def write_bounds(self, out: Path) -> str:
        """The bounds graph as ONNX; what its sizes are, in words."""
        from robnet_fx.interchange.bounds import write_bounds

        about = about_problem(self.net)
        box = about.pop("box")
        metadata = {
            "robnet_fx.version": robnet_fx.__version__,
            "robnet_fx.field": json.dumps({**about, **box}),
            "robnet_fx.method": self.net.method,
            "robnet_fx.symbols": str(self.net.symbols),
            "robnet_fx.clip": str(self.net.clip),
            "robnet_fx.normalisation": json.dumps(self.document["normalisation"]),
        }
        written = write_bounds(self.net, out, self.image, metadata)
        batch = "any number of images" if written.batch is None else f"{written.batch} image at a time"
        rows = "rows" if written.rows is None else f"{written.rows} rows"
        return f"{batch}, spec [batch, {rows}, {self.net.classes}], within {written.difference:.1g} of PyTorch"

    def _pictures(self) -> dict[str, str]:
        """The image and the ends of what the field can make of each pixel."""
        if self.image.dim() != 4 or self.image.shape[1] not in (1, 3):
            return {}
        with torch.no_grad():
            probe = self.net.probe(self.image)
        lower, upper = probe.get("clip", probe[ENTRY])["ibp"]
        shown = {"darkest pixels": lower, "the image": self.image, "brightest pixels": upper}
        return {caption: png_uri(pixels[0]) for caption, pixels in shown.items()}


def open_one_image(
    model: Model,
    images: Images,
    number: int | None,
    perturbation: Perturbation,
    clip: str | None,
    asked: str | None,
    symbols: Symbols | None,
) -> OneImage:
    """Open a model and its test image; without a data set for the model, and none asked for, a random image."""
    path = model.model
    unsaid = number is None and images.data is None and images.reading() == AS_STORED
    if unsaid and not read_header(path).image.open:
        lone = open_alone(model, images)
        try:
            data_sets.find(lone.layout.image, lone.model.classes, lone.model.metadata)
        except UsageError:
            problem = lone.problem(perturbation, clip)
            method = usual_method(perturbation, lone.layout, asked)
            kept = usual_symbols(lone, problem, method, symbols)
            net = BoundedModel(lone.canonical, problem, method, kept)
            image = torch.rand(1, *net.input_shape, generator=torch.Generator().manual_seed(0)).to(net.center)
            title = "a random image: no data set is known for this input; --data names one"
            document = {"model": str(path), "data": None, "normalisation": problem.normalisation}
            return OneImage(path, net, image, title, lone.describe(perturbation), document, None)
    judged = open_judged(model, images, device="cpu")
    number, count = number or 0, len(judged.data.x_test)
    if not 0 <= number < count:
        raise UsageError(f"--image must lie between 0 and {count - 1}, the test images of {judged.data.name}")
    net = judged.bound(perturbation, clip, asked, symbols)
    chosen, labels = judged.data.x_test[number : number + 1], judged.data.y_test[number : number + 1]
    (verdict,) = certify(net, chosen, labels, limits=Limits(boxes=1)).document()["samples"]
    verdict["index"] = number
    verdict.pop("coefficients", None)
    title = f"test image {number}: label {verdict['label']}, predicted {verdict['predicted']}, {_word(verdict)}"
    image, document = to_float(chosen, net.center), judged.opened.document()
    return OneImage(path, net, image, title, judged.describe(perturbation), document, verdict)


def _word(verdict: dict[str, Any]) -> str:
    return "certified" if verdict["certified"] else "not certified" if verdict["correct"] else "wrong"
