"""What the errors of relaxations do to SSIP's widths: symbols born and kept, and which node's hurt the margins most."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from robnet_fx.algebra.kernels import flat
from robnet_fx.bounds import generator
from robnet_fx.bounds.evaluate import margin_spec, other_classes
from robnet_fx.bounds.model import BoundedModel
from robnet_fx.bounds.plan import plan


@dataclass(frozen=True)
class Shares:
    """The shares of a width that come from the coefficients, from error symbols and from slack; they add up to 1."""

    coefficients: float
    symbols: float
    slack: float


@dataclass(frozen=True)
class NodeErrors:
    """A node's symbols, the mean over the images: `born` are made of its own errors, `kept` are not 0 in its value.

    `width` are the shares of its SSIP width, None where that is 0 or not finite. `hurts` is the share of the width of
    the margins, by SSIP, that is made of the errors born at this node, and `worst` whether no other node's is larger.
    """

    born: float
    kept: float
    width: Shares | None
    hurts: float = 0.0
    worst: bool = False


@dataclass(frozen=True)
class Errors:
    """By node; and the shares of the width of all margins against the predicted class together, None as for a node."""

    nodes: dict[str, NodeErrors]
    margins: Shares | None


@torch.no_grad()
def errors(net: BoundedModel, images: Tensor) -> Errors | None:
    """Where the widths of SSIP come from on `images [B, *S]`; None for a method or a perturbation without SSIP."""
    planned = plan(net.perturbed, net.method, net.symbols)
    if not planned.symbolic:
        return None
    predicted = net.logits(images).argmax(1)
    spec = margin_spec(predicted, other_classes(predicted, net.classes), net.classes).to(images)
    parts, rows, births = generator.errors(planned)(images, spec)
    found = {
        name: NodeErrors(0.0, float(kept.double().mean()), _shares(*width)) for name, (*width, kept) in parts.items()
    }
    dimensions, columns = len(net.center), flat(rows.coef.abs(), 2).sum(2)
    whole = columns.sum() + rows.slack.sum()
    owner = torch.full(columns.shape, -1, device=columns.device)
    for number, new in enumerate(births.values()):  # a later birth may take the column of a symbol that is no more
        owner[:, : new.shape[1]].masked_fill_(new, number)
    for number, (name, new) in enumerate(births.items()):
        hurts = float((columns * (owner == number)).sum() / whole)
        born = float(new.sum(1).double().mean())
        found[name] = replace(found[name], born=born, hurts=hurts if math.isfinite(hurts) else 0.0)
    most = max(node.hurts for node in found.values())
    nodes = {name: replace(node, worst=node.hurts == most > 0) for name, node in found.items()}
    return Errors(nodes, _shares(columns[:, :dimensions], columns[:, dimensions:], rows.slack))


def _shares(coefficients: Tensor, symbols: Tensor, slack: Tensor) -> Shares | None:
    """The shares of the parts of a width."""
    sizes = [float(part.double().sum()) for part in (coefficients, symbols, slack)]
    whole = sum(sizes)
    return Shares(*(size / whole for size in sizes)) if 0 < whole < math.inf else None
