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
    resize: options.Resize = None,
    white: options.White = None,
    test_share: options.TestShare = None,
    layout: options.Layout = None,
    flat: options.Flat = None,
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

    from robnet_fx.cli.opened import describe_data, describe_file, open_alone, open_subject
    from robnet_fx.cli.output import announce, show
    from robnet_fx.inspect.coverage import coverage_of
    from robnet_fx.machine.device import choose_device
    from robnet_fx.machine.memory import available_memory
    from robnet_fx.perturbations.bias_field import BiasField
    from robnet_fx.problem import Problem
    from robnet_fx.report.coverage import coverage_report

    place = choose_device(device)
    available = available_memory(place)
    heading = {"model": str(model), "order": order, "clip": clip}
    reading = options.read_reading(resize, white, test_share, layout)
    opening = options.Opening(model, data, reading, None, None, output, flat, device)
    try:
        if data is None:
            lone = open_alone(opening)
            canonical, found_layout, lines = lone.canonical, lone.layout, lone.describe(model)
        else:
            subject = open_subject(opening)
            canonical, found_layout = subject.canonical, subject.layout
            lines = describe_file(model, subject.model, found_layout, subject.remarks, subject.told)
            lines["data"] = describe_data(subject.data)
        announce("check", lines)
        found = coverage_of(canonical, Problem(BiasField(order, 0.0), options.read_clip(clip)))
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
        "layout": found_layout.way,
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
