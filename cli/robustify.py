"""`robnet-fx robustify`: the main job, an ONNX file in and a certifiably more robust one out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from robnet_fx.cli import options


def robustify(
    model: options.ModelFile,
    eps: options.Eps,
    order: options.Order = 3,
    data: options.Data = None,
    resize: options.Resize = None,
    white: options.White = None,
    test_share: options.TestShare = None,
    layout: options.Layout = None,
    flat: options.Flat = None,
    output: options.Output = None,
    epochs: Annotated[
        int | None,
        typer.Option(metavar="N", help="Robust training in N epochs.", show_default="the paper's schedule, 200"),
    ] = None,
    method: options.Method = "rsip-ssip",
    alpha: Annotated[float, typer.Option(help="Weight of the robust loss.")] = 1.0,
    lr: Annotated[float, typer.Option(help="Learning rate of the first robust epochs, with --epochs.")] = 5e-4,
    batch_size: Annotated[int, typer.Option(help="Images a training step.")] = 128,
    memory: options.Memory = None,
    precision: Annotated[
        str,
        typer.Option(
            help="Precision of training steps: float32, tf32 (float32 but for products on a GPU) or bf16 (faster, "
            "less memory). Verdicts are in float64."
        ),
    ] = "tf32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Have torch.compile fuse the training bounds: a minute first, for GPUs.")
    ] = False,
    augment: Annotated[
        bool, typer.Option("--augment", help="Mirror and shift the training images: for photographs.")
    ] = False,
    pretrain: Annotated[
        bool, typer.Option("--pretrain", help="Train on the standard loss first: for a model that is not trained yet.")
    ] = False,
    mean: options.Mean = None,
    std: options.Std = None,
    clip: options.Clip = "relu",
    limit: Annotated[int | None, typer.Option(metavar="N", help="Use N training images.", show_default="all")] = None,
    test_limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The result.", show_default="MODEL with .robust.onnx")
    ] = None,
    runs: Annotated[Path, typer.Option(metavar="DIR", help="Where the run's own new directory is made.")] = Path(
        "runs"
    ),
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Continue an interrupted run: its directory, the other arguments as before."),
    ] = None,
    json: options.Json = False,
) -> None:
    """Train MODEL until bias fields of the given order and strength provably leave its answers alone.

    Writes MODEL with .robust.onnx, its inputs, outputs and shapes unchanged, and a run directory with arguments,
    versions, metrics, checkpoint, certificate and the code of the generated bounds. The accuracies after training are
    measured on the written file, over test images that neither training nor selection saw.

    Example: `robnet-fx robustify digits.onnx --order 3 --eps 40`
    """
    share = options.read_eps(eps)
    reading = options.read_reading(resize, white, test_share, layout, seed)

    from dataclasses import asdict

    from robnet_fx.bounds import method_named
    from robnet_fx.cli.opened import open_subject
    from robnet_fx.cli.output import announce, show
    from robnet_fx.machine.files import sha256_of_file
    from robnet_fx.perturbations.bias_field import BiasField
    from robnet_fx.report.console import notes
    from robnet_fx.report.progress import Bars
    from robnet_fx.report.tables import before_and_after
    from robnet_fx.train.robustify import robustify as run
    from robnet_fx.zoo.data import METADATA_KEY

    method_named(method)
    field = BiasField(order, share)
    subject = open_subject(options.Opening(model, data, reading, mean, std, output, flat, device))
    schedule = "the paper's schedule" if epochs is None else f"{epochs} robust epochs"
    announce(
        "robustify",
        {**subject.describe(field), "training": f"{method}, clip {clip}, alpha {alpha:g}, {schedule}, seed {seed}"},
    )
    result = run(
        model,
        subject.data,
        eps=share,
        order=order,
        method=method,
        clip=options.read_clip(clip),
        output=output,
        mean=subject.mean,
        std=subject.std,
        layout=subject.layout,
        epochs=epochs,
        pretrain=pretrain,
        alpha=alpha,
        lr=lr,
        batch_size=batch_size,
        augment=augment,
        memory=None if memory is None else options.read_memory(memory),
        precision=precision,
        compiled=compiled,
        limit=limit,
        test_limit=test_limit,
        seed=seed,
        device=str(subject.device),
        out=out,
        runs=runs,
        resume=resume,
        metadata={METADATA_KEY: subject.data.name, **subject.reading.metadata()},
        progress=Bars(notes()),
    )
    before, after = asdict(result.before), asdict(result.after)
    files = {"model": str(result.out), "run": str(result.run)}
    document = {
        **subject.document(),
        "eps": share,
        "order": order,
        "box": {"center": result.net.center.tolist(), "radius": result.net.radius.tolist()},
        "method": method,
        "clip": clip,
        "images": result.images,
        "before": before,
        "after": after,
        "files": files,
        "written_as": result.exported,
        "model_sha256": {"before": sha256_of_file(model), "after": sha256_of_file(result.out)},
    }
    title = f"{result.images['test']} test images of {subject.data.name}, eps {share * 255:.4g}/255"
    show(document, before_and_after(title, before, after, files), as_json=json)
