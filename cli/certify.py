"""`robnet-fx certify`: the share of test images that no field of the box can turn."""

from __future__ import annotations

from typing import Annotated

import typer

from robnet_fx.cli import options


def certify(
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
    method: options.Method = "rsip-ssip",
    mean: options.Mean = None,
    std: options.Std = None,
    clip: options.Clip = "relu",
    limit: options.Limit = None,
    attack: Annotated[
        bool, typer.Option(help="Measure the upper limit of the certified accuracy too, by gradient ascent.")
    ] = True,
    seed: options.Seed = 0,
    device: options.Device = None,
    json: options.Json = False,
    out: options.Out = None,
) -> None:
    """Certify MODEL on test images: clean and certified accuracy, and by attack what certificates cannot exceed.

    The verdicts are worked out in float64. The JSON document has one record an image and everything needed to repeat
    them: the hashes of model and data, the box, the method and the arithmetic.

    Example: `robnet-fx certify digits.robust.onnx --order 3 --eps 40 --out certificate.json`
    """
    share = options.read_eps(eps)
    reading = options.read_reading(resize, white, test_share, layout, seed)

    from robnet_fx.bounds import method_named
    from robnet_fx.cli.opened import open_subject
    from robnet_fx.cli.output import announce, show
    from robnet_fx.errors import RobnetError
    from robnet_fx.perturbations.bias_field import BiasField
    from robnet_fx.report.console import notes
    from robnet_fx.report.progress import Bars
    from robnet_fx.report.tables import accuracies
    from robnet_fx.verify import certify as run_certify
    from robnet_fx.verify.attack import attack as run_attack

    method_named(method)
    field = BiasField(order, share)
    subject = open_subject(options.Opening(model, data, reading, mean, std, output, flat, device))
    index, images, labels = subject.test_images(limit)
    announce("certify", {**subject.describe(field), "method": f"{method}, clip {clip}, float64"})
    net = subject.bound(field, method, options.read_clip(clip))
    bars = Bars(notes())

    certificate = run_certify(net, images, labels, progress=bars, model_file=model)
    document = {**subject.document(), **certificate.document()}
    for number, sample in zip(index.tolist(), document["samples"], strict=True):
        sample["index"] = number
    shares = {"clean": certificate.clean_accuracy, "certified": certificate.certified_accuracy}
    if attack:
        attacked = run_attack(net, images, labels, seed=seed, progress=bars)
        contradictions = int((certificate.certified & attacked.adversarial).sum())
        if contradictions:
            raise RobnetError(
                f"{contradictions} images are certified and yet fooled: a bug in robnet-fx, please report it"
            )
        shares["attacked"] = document["attacked_accuracy"] = attacked.accuracy
    samples = document.pop("samples")
    title = f"{model}: {len(labels)} test images of {subject.data.name}, eps {share * 255:.4g}/255, {method}"
    show({**document, "samples": samples}, accuracies(title, {"share": shares}), as_json=json, out=out)
