"""`robnet-fx attack`: fields of the box that fool the model, an upper limit on any certified accuracy."""

from __future__ import annotations

from typing import Annotated

import typer

from robnet_fx.cli import options


def attack(
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
    steps: Annotated[int, typer.Option(help="Steps of gradient ascent in the coefficients.")] = 40,
    restarts: Annotated[int, typer.Option(help="Starting points: the centre of the box, then random ones.")] = 4,
    mean: options.Mean = None,
    std: options.Std = None,
    clip: options.Clip = "relu",
    limit: options.Limit = None,
    seed: options.Seed = 0,
    device: options.Device = None,
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Attack MODEL on test images: look for bias fields that turn its answers.

    No certified accuracy can exceed what is left. The JSON document has one record an image, with the coefficients of
    the worst field that was found.

    Example: `robnet-fx attack digits.onnx --order 3 --eps 40 --restarts 8`
    """
    share = options.read_eps(eps)
    reading = options.read_reading(resize, white, test_share, layout, seed)

    from robnet_fx.cli.opened import open_subject
    from robnet_fx.cli.output import announce, show
    from robnet_fx.machine.files import sha256_of_file, sha256_of_tensors
    from robnet_fx.perturbations.bias_field import BiasField
    from robnet_fx.report.console import notes
    from robnet_fx.report.progress import Bars
    from robnet_fx.report.tables import accuracies
    from robnet_fx.verify.attack import attack as run_attack

    field = BiasField(order, share)
    subject = open_subject(options.Opening(model, data, reading, mean, std, output, flat, device))
    index, images, labels = subject.test_images(limit)
    announce("attack", {**subject.describe(field), "search": f"{steps} steps from each of {restarts} starts"})
    net = subject.bound(field, "ibp", options.read_clip(clip))  # the cheapest bounds to generate: none is asked for

    found = run_attack(net, images, labels, steps=steps, restarts=restarts, seed=seed, progress=Bars(notes()))
    shares = {"clean": float(found.correct.double().mean()), "attacked": found.accuracy}
    columns = zip(index, labels, found.correct, found.adversarial, found.margin, found.coefficients, strict=True)
    names = ("index", "label", "correct", "fooled", "margin", "coefficients")
    document = {
        **subject.document(),
        "clean_accuracy": shares["clean"],
        "attacked_accuracy": shares["attacked"],
        "images": len(labels),
        "eps": share,
        "order": order,
        "box": {"center": net.center.tolist(), "radius": net.radius.tolist()},
        "clip": clip,
        "search": {"steps": steps, "restarts": restarts, "seed": seed},
        "model_sha256": {"file": sha256_of_file(model)},
        "data_sha256": sha256_of_tensors({"images": images, "labels": labels}),
        "samples": [dict(zip(names, (value.tolist() for value in row), strict=True)) for row in columns],
    }
    title = f"{model}: {len(labels)} test images of {subject.data.name}, eps {share * 255:.4g}/255"
    show(document, accuracies(title, {"share": shares}), as_json=json, out=out)
