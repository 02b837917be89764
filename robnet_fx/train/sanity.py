"""Is the model any good on this data to begin with? If not, the likely reasons."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robnet_fx.bounded import BoundedModel
from robnet_fx.certify.verdict import classify
from robnet_fx.errors import UsageError
from robnet_fx.images import batches, to_float
from robnet_fx.margins import correct


def check_weights(net: BoundedModel) -> None:
    """`UsageError` naming the tensors of the model that hold NaN or infinite numbers."""
    bad = [name for name, value in net.model.named_parameters() if not bool(value.isfinite().all())]
    bad += [name for name, value in net.model.named_buffers() if bool(value.isnan().any())]  # a limit may be infinite
    if bad:
        raise UsageError("the model's weights are not finite numbers:" + "".join(f"\n  {name}" for name in bad))


def check_above_chance(net: BoundedModel, images: Tensor, labels: Tensor, data: str) -> None:
    """`UsageError` with the likely causes if the model does no better than guessing on these images.

    Accuracy is the mean over the classes present (so that always naming the most frequent one counts as guessing), and
    guessing is one over their number, plus three standard deviations for the size of the sample.
    """
    _, right = classify(net, images, labels)
    accuracy, guessing, limit = _balanced(right, labels)
    if accuracy > limit:
        return
    share = float(right.double().mean())
    found = _probe(net, images, labels)
    raise UsageError(
        f"the model is at chance level on {data}: {share:.1%} of {len(images)} images correct "
        f"({accuracy:.1%} on average over the classes; guessing gives {guessing:.1%})\n"
        f"  data           is {data} what the model was trained on, with its classes in the same order?\n"
        f"  normalisation  does it expect normalised pixels? then give its mean and std, and only once\n"
        f"  layout         are the channels in its order (RGB or BGR), height before width?\n"
        f"  scaling        it is fed pixels in 0 .. 1; was it trained on 0 .. 255 or -1 .. 1?\n"
        + (f"  found          {found}\n" if found else "")
        + "  remedy         put that right, or train it from here with pretraining (--pretrain)"
    )


def _balanced(right: Tensor, labels: Tensor) -> tuple[float, float, float]:
    """(mean accuracy over the classes present, what guessing gives, the most that guessing plausibly gives)."""
    present = [right[labels.cpu() == label].double() for label in labels.unique().tolist()]
    guessing = 1 / len(present)
    deviation = math.sqrt(sum(guessing * (1 - guessing) / len(group) for group in present)) / len(present)
    accuracy = float(torch.stack([group.mean() for group in present]).mean())
    return accuracy, guessing, guessing + 3 * deviation if len(present) > 1 else -1.0


@torch.no_grad()
def _probe(net: BoundedModel, images: Tensor, labels: Tensor) -> str | None:
    """The usual mistakes undone one at a time: what helps, if anything does."""
    dims = tuple(range(2, images.dim()))
    changes = {
        "pixels in 0 .. 255": lambda x: x * 255,
        "pixels in -1 .. 1 (mean 0.5, std 0.5)": lambda x: 2 * x - 1,
        "each image at mean 0 and deviation 1": lambda x: (x - x.mean(dims, True)) / (x.std(dims, keepdim=True) + 1e-6),
        "inverted pixels": lambda x: 1 - x,
        "the channels reversed": lambda x: x.flip(1),
    }
    if images.dim() == 4 and images.shape[2] == images.shape[3]:
        changes["height and width swapped"] = lambda x: x.transpose(2, 3)
    best, name = 0.0, None
    for change, apply in changes.items():
        right = []
        for part in batches(len(images), 256):
            logits = net.logits(apply(to_float(images[part], net.center)))
            right.append(correct(logits, labels[part].to(logits.device)).cpu())
        accuracy, _, limit = _balanced(torch.cat(right), labels)
        if accuracy > max(best, limit):
            best, name = accuracy, change
    return f"with {name} it would be {best:.1%}" if name else None
