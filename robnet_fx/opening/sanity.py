"""Is the model any good on this data to begin with? If not, the likely reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robnet_fx.algebra.logits import correct
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.errors import UsageError
from robnet_fx.images.pixels import batches, to_float
from robnet_fx.opening.chance import LEVEL, best_by_guessing, by_guessing, by_luck
from robnet_fx.passes import NORMALISATION
from robnet_fx.passes.insert_normalisation import Normalisation, per_channel
from robnet_fx.problem import Constants
from robnet_fx.verify.verdict import classify

_USUAL: dict[str, tuple[Constants, Constants]] = {
    "none": (None, None),
    "pixels in 0 .. 255": (0.0, 1 / 255),
    "pixels in -1 .. 1": (0.5, 0.5),
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "MNIST": (0.1307, 0.3081),
}
"""Normalisations that classifiers are trained with: what of, mean, std."""


def check_weights(net: BoundedModel) -> None:
    """`UsageError` naming the tensors of the model that hold NaN or infinite numbers."""
    bad = [name for name, value in net.model.named_parameters() if not bool(value.isfinite().all())]
    bad += [name for name, value in net.model.named_buffers() if bool(value.isnan().any())]  # a limit may be infinite
    if bad:
        raise UsageError("the model's weights are not finite numbers:" + "".join(f"\n  {name}" for name in bad))


def check_above_chance(net: BoundedModel, images: Tensor, labels: Tensor, data: str) -> list[str]:
    """`UsageError` with the likely causes if the model does no better than guessing on these images.

    Guessing is any answers that have nothing to do with the images, always the same one among them: an exact test
    (`opening.chance`). Returns what is to be said though the work goes on: that too few images, or too alike labels,
    tell nothing; that another normalisation is clearly better, or another change of the pixels.
    """
    predicted, right = classify(net, images, labels)
    labels = labels.cpu()
    if best_by_guessing(labels) >= LEVEL:
        kinds = len(labels.unique())
        return [
            f"{len(labels)} images of {kinds} class{'es' * (kinds > 1)} cannot tell whether the model guesses: "
            f"{int(right.sum())} are right, which is not taken as a sign of anything"
        ]
    probability = by_guessing(predicted, labels)
    found = _probe(net, images, labels, right)
    if probability < LEVEL:
        return [f"{found.text}, where as it is {_share(right)} are right"] if found else []
    names = labels.bincount(minlength=net.classes)
    raise UsageError(
        f"the model is at chance level on {data}: {_share(right)} of {len(labels)} images correct, as guessing may be "
        f"(probability {probability:.2g}; the largest class is {float(names.max()) / len(labels):.1%})\n"
        f"  data           is {data} what the model was trained on, with its classes in the same order?\n"
        f"  normalisation  does it expect normalised pixels? then give its mean and std, and only once\n"
        f"  layout         are the channels in its order (RGB or BGR), height before width?\n"
        f"  scaling        it is fed pixels in 0 .. 1; was it trained on 0 .. 255 or -1 .. 1?\n"
        + (f"  found          {found.text}\n" if found else "")
        + f"  remedy         {found.remedy if found else 'put that right'}, or train it from here with pretraining "
        "(--pretrain)"
    )


def doubt(net: BoundedModel, images: Tensor, labels: Tensor, predicted: Tensor, right: Tensor, data: str) -> str:
    """A line where the answers `predicted [N]`, `right` where `bool [N]`, know nothing of the images: none is right, or
    no more than by guessing where labels can tell. Names the change of the pixels that would help, if one clearly does.
    """
    labels = labels.cpu()
    telling = best_by_guessing(labels) < LEVEL
    if bool(right.any()) and not (telling and by_guessing(predicted, labels) >= LEVEL):
        return ""
    found = _probe(net, images, labels, right)
    return (
        f"the model knows nothing of these images of {data}: {_share(right)} of {len(labels)} are right"
        + (", as guessing may be" if bool(right.any()) else "")
        + (f"; {found.text}" if found else "")
    )


@dataclass(frozen=True)
class _Finding:
    """A change of the images that makes the model better."""

    text: str
    remedy: str


_Change = tuple[_Finding, Callable[[Tensor], Tensor]]
"""A finding, and what it does to images as the net takes them."""


@torch.no_grad()
def _probe(net: BoundedModel, images: Tensor, labels: Tensor, right: Tensor) -> _Finding | None:
    """The usual mistakes undone one at a time: the change that helps most, if one clearly helps. A normalisation goes
    before other changes, and of several that are right about as often the one with the least cross entropy."""
    wanted = labels.cpu()
    for changes in (_normalisations(net), _others(net, images)):
        clear: list[tuple[float, _Finding, Tensor]] = []
        for finding, change in changes:
            parts = [net.logits(change(to_float(images[p], net.center))).cpu() for p in batches(len(images), 256)]
            logits = torch.cat(parts)
            now = correct(logits, wanted)
            if by_luck(now, right) < LEVEL and by_guessing(logits.argmax(1), wanted) < LEVEL:
                clear.append((float(torch.nn.functional.cross_entropy(logits, wanted)), finding, now))
        if clear:
            most = max((now for _, _, now in clear), key=lambda now: int(now.sum()))
            as_good = [entry for entry in clear if by_luck(most, entry[2]) >= LEVEL]
            _, finding, now = min(as_good, key=lambda entry: entry[0])
            return _Finding(f"with {finding.text} {_share(now)} would be right", finding.remedy)
    return None


def _normalisations(net: BoundedModel) -> list[_Change]:
    """The usual ones, as far as they have the channels of the images."""
    return [
        (
            _Finding(f"the normalisation {name} (--mean {_typed(mean, 0)} --std {_typed(std, 1)})", _remedy(mean, std)),
            _normalised(net, mean, std),
        )
        for name, (mean, std) in _USUAL.items()
        if all(not isinstance(value, tuple) or len(value) == net.layout.image[0] for value in (mean, std))
    ]


def _others(net: BoundedModel, images: Tensor) -> list[_Change]:
    """What else is done to images, with the axes that `net` takes."""
    axes, last = net.layout.axes, images.dim() - 1
    spatial = tuple(range(1, last)) if axes == "nhwc" else tuple(range(1 if axes == "nhw" else 2, last + 1))

    def standardised(x: Tensor) -> Tensor:
        return (x - x.mean(spatial, True)) / (x.std(spatial, keepdim=True) + 1e-6)

    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "each image at mean 0 and deviation 1": standardised,
        "inverted pixels": lambda x: 1 - x,
    }
    if axes != "nhw" and net.layout.image[0] > 1:
        changes["the channels reversed"] = lambda x: x.flip(-1 if axes == "nhwc" else 1)
    if len(spatial) == 2 and images.shape[spatial[0]] == images.shape[spatial[1]]:
        changes["height and width swapped"] = lambda x: x.transpose(*spatial)
    return [(_Finding(name, f"give the model {name}"), change) for name, change in changes.items()]


def _normalised(net: BoundedModel, mean: Constants, std: Constants) -> Callable[[Tensor], Tensor]:
    """Images that `net`, with the normalisation it has, gives to the module as this one would."""
    shift, scale = (per_channel(name, value, net.layout.image) for name, value in (("mean", mean), ("std", std)))
    own = dict(net.clean.named_children()).get(NORMALISATION)
    if isinstance(own, Normalisation):
        scale = scale / own.std.double().cpu()
        shift = shift - own.mean.double().cpu() * scale
    if net.layout.axes != "nchw":
        shift, scale = (value.movedim(0, -1) if net.layout.axes == "nhwc" else value[0] for value in (shift, scale))
    return lambda x: (x - shift.to(x)) / scale.to(x)


def _remedy(mean: Constants, std: Constants) -> str:
    if mean is None and std is None:
        return "leave the normalisation out: the model has its own (--mean 0 --std 1)"
    return f"--mean {_typed(mean, 0)} --std {_typed(std, 1)}"


def _typed(values: Constants, default: float) -> str:
    """Numbers as the command line takes them."""
    values = default if values is None else values
    return ",".join(f"{value:.8g}" for value in (values if isinstance(values, tuple) else (values,)))


def _share(right: Tensor) -> str:
    return f"{float(right.double().mean()):.1%}"
