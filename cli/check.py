"""`robnet-fx check`: the dry run, before anything is trained or bounded."""

from __future__ import annotations

from typing import Annotated

import typer

from robnet_fx.cli import options
from robnet_fx.cli.groups import grouped
from robnet_fx.errors import UnsupportedError


@grouped
def check(
    perturbation: options.Perturbation,
    model: options.Model,
    images: options.Images,
    batch: Annotated[int, typer.Option(min=1, metavar="N", help="Estimate the memory of batches of N images.")] = 128,
    device: options.Device = None,
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Say whether MODEL can be bounded, before any work is done: the share of its operations with bound rules, every
    other one with shape, layer, source line and remedy, the memory that bounds will need, and what one image's bounds
    cost with more and more symbols.

    A model that leaves its height and width open needs --data, the images that it is for. How strong the perturbation
    is makes no difference, and need not be said.

    Ends with 3 when something is missing.

    Example: `robnet-fx check digits.onnx --order 3 --batch 256`
    """
    wanted = perturbation.read(needed=False)

    from dataclasses import asdict

    from robnet_fx.cli.opened import open_with_or_without_data
    from robnet_fx.cli.output import announce, show
    from robnet_fx.inspect.cost import costs
    from robnet_fx.inspect.coverage import coverage_of
    from robnet_fx.machine.device import choose_device
    from robnet_fx.machine.memory import available_memory
    from robnet_fx.report.coverage import coverage_report
    from robnet_fx.verify.record import about_perturbation, hashes, record

    place = choose_device(device)
    available = available_memory(place)
    heading = {"model": str(model.model), **about_perturbation(wanted), "clip": perturbation.form}
    try:
        found = open_with_or_without_data(model, images, device=device)
        announce("check", found.describe())
        covered = coverage_of(found.canonical, found.problem(wanted, perturbation.form))
    except UnsupportedError as error:  # the front end stops before the operations can be counted
        if json:
            failed = {"supported": False, "coverage": None, "error": str(error)}
            show(record("check", heading, failed), "", as_json=True, out=out)
        raise
    boxes = costs(covered.perturbed, place, available)
    memory = {
        name: {"image": need.image, f"batch_{batch}": need.of(batch), "largest_batch": need.fits(available)}
        for name, need in (("training", covered.training), ("verdicts", covered.verdicts))
    }
    memory["training"]["one_margin"] = covered.one_margin.of(1)
    counted = {
        "layout": found.layout.way,
        "remarks": covered.remarks,
        "supported": not covered.gaps,
        "coverage": covered.share,
        "nodes": covered.nodes,
        "bounded": covered.bounded,
        "unsupported": [asdict(gap) for gap in covered.gaps],
        "memory_bytes": {"device": str(place), "available": available, **memory},
        "boxes": [asdict(cost) for cost in boxes],
    }
    report = coverage_report(str(model.model), covered, boxes, batch, available, str(place))
    document = record("check", heading, counted, hashes(file=model.model))
    show(document, report, as_json=json, out=out)
    if covered.gaps:
        raise typer.Exit(UnsupportedError.exit_code)
