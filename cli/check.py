"""`robnet-fx check`: the dry run, before anything is trained or bounded."""

from __future__ import annotations

from typing import Annotated

import typer

from robnet_fx.cli import options
from robnet_fx.errors import UnsupportedError


def check(
    model: options.ModelFile,
    order: options.Order = 3,
    data: options.Data = None,
    output: options.Output = None,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Estimate the memory of batches of N images.")] = 128,
    clip: options.Clip = "relu",
    device: options.Device = None,
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Say whether MODEL can be bounded, before any work is done: the share of its operations with bound rules, every
    other one with shape, layer, source line and remedy, and the memory that bounds will need.

    A model that leaves its height and width open needs --data, the images that it is for.

    Ends with 3 when something is missing.

    Example: `robnet-fx check digits.onnx --order 3 --batch 256`
    """
    from dataclasses import asdict

    import torch

    from robnet_fx.cli.output import announce, show
    from robnet_fx.cli.subject import describe_file, open_subject
    from robnet_fx.coverage import coverage
    from robnet_fx.device import choose_device
    from robnet_fx.field import BiasField
    from robnet_fx.frontend.onnx import load_onnx
    from robnet_fx.layout import image_shape, layout
    from robnet_fx.memory import available_memory
    from robnet_fx.report.coverage import coverage_report

    place = choose_device(device)
    available = available_memory(place)
    heading = {"model": str(model), "order": order, "clip": clip}
    try:
        if data is None:
            loaded, known = load_onnx(model, output=output), None
        else:
            subject = open_subject(model, data, None, None, device, output)
            loaded, known = subject.model, subject.data.input_shape
        images = known or image_shape(loaded.input_shape)
        found = coverage(loaded, BiasField(order, 0.0), options.read_clip(clip), example=torch.rand(2, *images))
        announce("check", describe_file(model, loaded, known, found.remarks))
    except UnsupportedError as error:  # the front end stops before the operations can be counted
        if json:
            show({**heading, "supported": False, "coverage": None, "error": str(error)}, "", as_json=True, out=out)
        raise
    memory = {
        name: {"image": need.image, f"batch_{batch}": need.of(batch), "largest_batch": need.fits(available)}
        for name, need in (("training", found.training), ("verdicts", found.verdicts))
    }
    memory["training"]["one_margin"] = found.one_margin.of(1)
    document = {
        **heading,
        "layout": layout(images, loaded.input_shape),
        "remarks": found.remarks,
        "supported": not found.gaps,
        "coverage": found.share,
        "nodes": found.nodes,
        "bounded": found.bounded,
        "unsupported": [asdict(gap) for gap in found.gaps],
        "memory_bytes": {"device": str(place), "available": available, **memory},
    }
    report = coverage_report(str(model), found, batch, available, str(place))
    show(document, report, as_json=json, out=out)
    if found.gaps:
        raise typer.Exit(UnsupportedError.exit_code)
