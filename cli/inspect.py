"""`robnet-fx inspect`: the graphs between a network and its bounds, and the bounds on one image."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from robnet_fx.cli import options
from robnet_fx.errors import UsageError


def inspect(
    model: options.ModelFile,
    stage: Annotated[
        str, typer.Option(help="source (as traced), passes (field and clip inserted) or bounds.")
    ] = "source",
    code: Annotated[bool, typer.Option("--code", help="Print the graph's Python code instead of a table.")] = False,
    image: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Show every node's bounds on test image N instead (needs --eps).", show_default=False
        ),
    ] = None,
    eps: Annotated[
        str | None, typer.Option(metavar="EPS", help="Strength of the field, for --image.", show_default=False)
    ] = None,
    order: options.Order = 3,
    data: options.Data = None,
    method: options.Method = "rsip-ssip",
    mean: options.Mean = None,
    std: options.Std = None,
    clip: options.Clip = "relu",
    json: options.Json = False,
) -> None:
    """Look inside: MODEL's graph at a stage, as a table or as code, or the width of every bound on an image.

    Examples: `robnet-fx inspect digits.onnx --stage bounds --code`, `robnet-fx inspect digits.onnx --image 0 --eps 40`
    """
    if image is not None and eps is None:
        raise UsageError("--image needs --eps, the strength of the field")
    share = 0.0 if eps is None else options.read_eps(eps)  # a graph is the same at every eps

    from dataclasses import asdict

    from robnet_fx.cli.output import announce, show
    from robnet_fx.cli.subject import normalisation, open_subject
    from robnet_fx.field import BiasField
    from robnet_fx.generate import method_named
    from robnet_fx.report.console import results, say
    from robnet_fx.report.tables import graph_table, width_table

    method_named(method)
    field, form = BiasField(order, share), options.read_clip(clip)
    if image is None:
        import torch

        from robnet_fx.frontend.onnx import load_onnx
        from robnet_fx.inspect import node_lines, stage_graph

        loaded = load_onnx(model)
        example = torch.rand(2, *loaded.input_shape, generator=torch.Generator().manual_seed(0))
        constants = normalisation(loaded, mean, std)
        graph = stage_graph(loaded, stage, field, method, form, *constants, example)
        lines = node_lines(graph, stage)
        if code and not json:
            say(results(), graph.code.strip())
            return
        document: dict[str, Any] = {
            "model": str(model),
            "stage": stage,
            "code": graph.code,
            "nodes": [asdict(line) for line in lines],
        }
        show(document, graph_table(f"{model}: {stage}, {len(lines)} nodes", lines), as_json=json)
        return

    from robnet_fx.certify import certify
    from robnet_fx.images import to_float
    from robnet_fx.inspect import node_widths

    subject = open_subject(model, data, mean, std, "cpu")
    count = len(subject.data.x_test)
    if not 0 <= image < count:
        raise UsageError(f"--image must lie between 0 and {count - 1}, the test images of {subject.data.name}")
    announce("inspect", {**subject.describe(field), "method": f"{method}, clip {clip}"})
    net = subject.bound(field, method, form)
    images, labels = subject.data.x_test[image : image + 1], subject.data.y_test[image : image + 1]
    widths = node_widths(net, to_float(images, net.center))
    (verdict,) = certify(net, images, labels).document()["samples"]
    verdict["index"] = image
    found = "certified" if verdict["certified"] else "not certified" if verdict["correct"] else "wrong"
    title = f"test image {image}: label {verdict['label']}, predicted {verdict['predicted']}, {found}"
    document = {**subject.document(), "eps": share, "order": order, "method": method, "clip": clip, "image": verdict}
    show({**document, "nodes": [asdict(line) for line in widths]}, width_table(title, widths), as_json=json)
