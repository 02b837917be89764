"""The main job: a classifier in, the same classifier out, certifiably more robust against a bias field."""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from robnet_fx.bounds.memory import of_training
from robnet_fx.bounds.model import BoundedModel, bound
from robnet_fx.errors import Interrupted, UsageError
from robnet_fx.frontend import trace
from robnet_fx.frontend.onnx.load import OnnxModel, load_for
from robnet_fx.frontend.onnx.metadata import FLAT, normalisation_metadata
from robnet_fx.frontend.outputs import Name
from robnet_fx.frontend.unwrap import to_full_precision, unwrap
from robnet_fx.images.layout import Layout, axes_of, channels_first
from robnet_fx.images.pixels import check, subset, to_float
from robnet_fx.interchange.network import write_onnx
from robnet_fx.interchange.program import write_program
from robnet_fx.machine import ranks
from robnet_fx.machine.device import choose_device
from robnet_fx.machine.memory import available_memory, bytes_text
from robnet_fx.machine.precision import training_precision
from robnet_fx.machine.progress import SILENT, Progress
from robnet_fx.opening.layout_by_labels import settle_by_labels, with_channels_first
from robnet_fx.opening.sanity import check_above_chance, check_weights
from robnet_fx.perturbations.bias_field import BiasField
from robnet_fx.problem import Problem
from robnet_fx.train import run_folder as folders
from robnet_fx.train.history import History
from robnet_fx.train.loop import train
from robnet_fx.train.recipe import Recipe
from robnet_fx.verify import Certificate, certify
from robnet_fx.verify.attack import attack
from robnet_fx.verify.certificate import versions

VERDICT_METHOD = "rsip-ssip"  # the paper evaluates every network with it, whatever it was trained with
_VALIDATION_SHARE, _VALIDATION_MOST = 10, 1000  # one training image in ten is held out, 1000 at most
_JUDGED = 1000  # images that say whether the model knows the data at all


class Data(Protocol):
    """Images uint8 (or float in [0, 1]) `[N, C, *spatial]`, or with the axes of another layout, and labels int64 `[N]`.

    `x_val` and `y_val`, where they are there and not None, validate; `notes` are phrases on how the data was read.
    """

    @property
    def name(self) -> str: ...
    @property
    def x_train(self) -> Tensor: ...
    @property
    def y_train(self) -> Tensor: ...
    @property
    def x_test(self) -> Tensor: ...
    @property
    def y_test(self) -> Tensor: ...


@dataclass(frozen=True)
class Score:
    """Shares of the test images: correct, certified, and correct under every field that was tried (between the two)."""

    clean: float
    certified: float
    attacked: float


@dataclass(frozen=True)
class RobustifyResult:
    """`before` and `after` are measured on test images that neither training nor selection saw; `after` on `out`."""

    before: Score
    after: Score
    out: Path
    run: Path
    history: History
    certificate: Certificate
    net: BoundedModel
    exported: str
    images: dict[str, int]


def robustify(
    model: nn.Module | Path | str,
    data: Data,
    *,
    eps: float,
    order: int = 3,
    multiplicative: bool = True,
    additive: bool = False,
    method: str = "rsip-ssip",
    clip: str | None = "relu",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    layout: str | Layout | None = None,
    flat: str | None = None,
    epochs: int | None = None,
    pretrain: bool = False,
    alpha: float = 1.0,
    lr: float = 5e-4,
    batch_size: int = 128,
    augment: bool = False,
    memory: int | None = None,
    precision: str = "tf32",
    compiled: bool = False,
    limit: int | None = None,
    test_limit: int | None = None,
    seed: int = 0,
    device: str | None = None,
    out: Path | str | None = None,
    runs: Path | str = "runs",
    resume: Path | str | None = None,
    metadata: Mapping[str, str] | None = None,
    output: Name = None,
    progress: Progress = SILENT,
) -> RobustifyResult:
    """Train `model` (an ONNX file, or a module in place) against the fields of the box and write it as ONNX to `out`.

    A module in half precision is not trained itself but a float32 copy, the result's `net.model`. `output` names the
    logits where there are several tensors, as `trace` takes it.

    The model is measured first, and refused at chance level unless `pretrain`. `epochs` gives the paper's schedule in
    that many epochs (`Recipe.short`), None in full; `limit` and `test_limit` cut the training and the test set to a
    fixed random choice. What is chosen on the way is chosen on up to 1000 validation images: those of `data` (`x_val`,
    `y_val`), else a tenth of the training images. `layout` (by default what `data.axes` says, where it says something)
    and `flat` are how images lie in `data` and how the model takes them, as for `bound`. `eps` is a plain number.
    `memory` is how many bytes a training step may take, all that is free if not given: a batch whose bounds need more,
    by the estimate of `robnet_fx.bounds.memory`, is bounded in parts.
    `precision` is that of training steps (`machine.precision`), and `compiled` has `torch.compile` fuse their bounds;
    what is measured before and after knows neither.
    `out` defaults to `<model>.robust.onnx` beside the model. A new directory under `runs` takes arguments, versions,
    metrics, checkpoint, certificate and the bounds graph as a program with its weights (`interchange.program`);
    `resume` names such a directory whose run was interrupted, to go on with it under the same arguments.
    The written file, whose properties remember `mean`, `std` and `metadata`, is read back, certified and attacked.
    Raises `UsageError`, `UnsupportedError`, `Interrupted`.
    """
    arguments = {k: v for k, v in locals().items() if k not in ("model", "data", "progress")}
    common: dict[str, Any] = {
        "batch_size": batch_size,
        "alpha": alpha,
        "seed": seed,
        "augment": augment,
        "precision": precision,
    }
    if epochs is None:
        recipe = Recipe.paper(pretrain=pretrain, **common)
    else:
        recipe = Recipe.short(epochs, pretrain=pretrain, lr=lr, **common)
    target = _target(model, out)
    folder = None if resume is None else folders.reopen(Path(resume))
    field = BiasField(order, eps, multiplicative, additive)
    place = choose_device(device)
    example = to_float(data.x_train[:2], torch.zeros(()))
    layout = layout or getattr(data, "axes", None)
    asked = None if output is None or isinstance(model, nn.Module) else str(output)  # of a file
    source: nn.Module
    if isinstance(model, nn.Module):
        source = as_read = to_full_precision(unwrap(model))
    else:
        source = as_read = load_for(Path(model), tuple(example.shape[1:]), asked, axes_of(layout))
        output = None
    if isinstance(source, OnnxModel) and any(value.dtype == torch.float64 for value in source.parameters()):
        source = copy.deepcopy(as_read).float()  # trained so, and judged in the digits that the file has
    canonical = trace(source, example, output, layout, flat)
    if said := settle_by_labels(canonical, data.x_train, data.y_train, mean, std):
        progress.remark(said)
    axes, how = with_channels_first(canonical, mean, std)
    example = channels_first(example, axes)  # as all images from here on: augmentation expects them so

    def bounded(module: nn.Module, bounds: str) -> BoundedModel:
        return bound(module, field, bounds, clip, mean, std, example, output, how).to(place)

    net = BoundedModel(canonical, Problem(field, clip, mean, std), method).to(place)
    ranks.follow([*net.model.parameters(), *net.model.buffers()])
    check_weights(net)
    images_at_once, rows_at_once = _at_once(net, memory, batch_size)
    recipe = replace(recipe, micro_batch=images_at_once, micro_rows=rows_at_once)
    parts = _split(data, limit, test_limit, seed)
    train_set, validation, test = ((channels_first(images, axes), labels) for images, labels in parts)
    for images, labels in (train_set, validation, test):
        check(images, labels, net.classes)
    if not pretrain:
        known, answers = (torch.cat(pair)[:_JUDGED] for pair in zip(validation, train_set, strict=True))
        for remark in check_above_chance(net, known, answers, data.name):
            progress.remark(remark)
    if compiled:
        _compile(net, example, recipe)

    judge = net
    if source is not as_read:
        judge = bounded(as_read, VERDICT_METHOD)
    elif method != VERDICT_METHOD:
        judge = BoundedModel(canonical, Problem(field, clip, mean, std), VERDICT_METHOD).to(place)
    before, _ = _measure(judge, test, seed, progress, None)
    counts = {"train": len(train_set[1]), "validation": len(validation[1]), "test": len(test[1])}
    if folder is None:
        folder = folders.create(Path(runs), target.name.removesuffix(".onnx"))
        center, radius = net.transform.box_at(eps)
        box = {"center": center.tolist(), "radius": radius.tolist()}
        subject = {"model": str(model) if isinstance(model, (str, Path)) else type(model).__name__, "data": data.name}
        described = {
            **subject,
            "data_notes": list(getattr(data, "notes", ())),
            **arguments,
            "recipe": recipe.to_dict(),
            "images": counts,
            "box": box,
        }
        folders.write_json(folder / "arguments.json", {**described, "out": target, "versions": versions()})
        ranks.by_leader(lambda: write_program(net, folder))
        folders.write_json(folder / "metrics.json", {"before": asdict(before)})

    checkpoint = folder / folders.CHECKPOINT
    remembered = {**normalisation_metadata(mean, std), **({FLAT: how.order} if how.order else {}), **(metadata or {})}
    history = train(
        net,
        *train_set,
        recipe,
        validation=validation,
        checkpoint=checkpoint,
        resume=resume is not None,
        progress=progress,
    )
    try:
        inputs = net.arranged(example)
        exported = ranks.by_leader(lambda: write_onnx(net.model, target, inputs, metadata=remembered, output=output))
        written = bounded(load_for(target, net.taken, asked), VERDICT_METHOD)
        after, certificate = _measure(written, test, seed, progress, target)
    except KeyboardInterrupt:
        raise Interrupted(f"stopped after training; {checkpoint} continues the run", checkpoint) from None
    ranks.by_leader(lambda: write_program(net, folder))  # now with the weights that were trained
    folders.write_text(folder / "certificate.json", certificate.to_json())
    folders.write_json(
        folder / "metrics.json",
        {"before": asdict(before), "after": asdict(after), "selected": history.selected, "epochs": history.epochs},
    )
    return RobustifyResult(before, after, target, folder, history, certificate, net, exported, counts)


def _target(model: nn.Module | Path | str, out: Path | str | None) -> Path:
    """Where the result goes: never onto the model itself, and not where it could not be written after hours of work."""
    if out is not None:
        target = Path(out)
    elif isinstance(model, nn.Module):
        target = Path(f"{type(model).__name__.lower()}.robust.onnx")
    else:
        target = Path(model).with_suffix(".robust.onnx")
    if target.is_dir():
        raise UsageError(f"cannot write the result to {target}: it is a directory")
    if not target.parent.is_dir():
        raise UsageError(f"cannot write the result to {target}: there is no directory {target.parent}")
    if not isinstance(model, nn.Module) and target.resolve() == Path(model).resolve():
        raise UsageError(f"the result would overwrite the model {model}: choose another name")
    return target


def _compile(net: BoundedModel, example: Tensor, recipe: Recipe) -> None:
    """Compile, and for the gradients of the first step now, where a compiler that does not work loses nobody's time."""
    net.compile()
    images = example.to(net.center)
    labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
    try:
        with training_precision(recipe.precision):
            for some in net.margins_in_parts(images, labels, rows=recipe.micro_rows, precision=recipe.precision):
                some.sum().backward()
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        reason = " ".join(str(error).splitlines()[:2])  # which backend, and what is the matter with it
        raise UsageError(f"torch.compile does not work here: {reason}\n  remedy   leave out --compile") from error
    net.model.zero_grad(set_to_none=True)


def _at_once(net: BoundedModel, memory: int | None, batch: int) -> tuple[int | None, int | None]:
    """How many images, and margins of one, a training step may bound at once; None for all of them."""
    limit = available_memory(net.center.device) if memory is None else memory
    images = of_training(net.perturbed).fits(limit)
    if images:
        return None if images >= batch else images, None
    counts = range(1, net.classes)
    rows = bisect_left(counts, True, key=lambda count: not of_training(net.perturbed, count).fits(limit))
    if memory is not None and not rows:
        least = of_training(net.perturbed, 1).least()
        raise UsageError(f"--memory is too little for one margin of one image: it takes some {bytes_text(least)}")
    return 1, max(1, rows)


def _split(
    data: Data, limit: int | None, test_limit: int | None, seed: int
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(training, validation, test): the data's own validation images, up to 1000 of them, else some of the training
    images, held out by seed; the test set stays apart."""
    chosen = subset(len(data.x_train), limit)
    test = subset(len(data.x_test), test_limit)
    x_val, y_val = (getattr(data, name, None) for name in ("x_val", "y_val"))
    if x_val is not None and y_val is not None:
        val = subset(len(x_val), _VALIDATION_MOST)
        return (
            (data.x_train[chosen], data.y_train[chosen]),
            (x_val[val], y_val[val]),
            (data.x_test[test], data.y_test[test]),
        )
    if len(chosen) < 2:
        raise UsageError("training needs at least two images: one is held out for validation")
    shuffled = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(seed))]
    held_out = min(max(len(chosen) // _VALIDATION_SHARE, 1), _VALIDATION_MOST)
    val, rest = shuffled[:held_out].sort().values, shuffled[held_out:].sort().values
    return (
        (data.x_train[rest], data.y_train[rest]),
        (data.x_train[val], data.y_train[val]),
        (data.x_test[test], data.y_test[test]),
    )


def _measure(
    net: BoundedModel, test: tuple[Tensor, Tensor], seed: int, progress: Progress, model_file: Path | None
) -> tuple[Score, Certificate]:
    certificate = certify(net, *test, progress=progress, model_file=model_file)
    attacked = attack(net, *test, seed=seed, progress=progress)
    return Score(certificate.clean_accuracy, certificate.certified_accuracy, attacked.accuracy), certificate
