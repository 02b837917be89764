"""What a training run reports of itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class History:
    """What happened: figures of every epoch, and the epoch (from 0) whose weights were kept.

    `epochs[i]` holds phase, lr, eps at the epoch's end, the mean losses of the objective over the training images as
    met (`standard` and, for equation 6, `robust`), the shares `clean` and `certified` of these images, and
    `validation_clean`, `validation_certified` where there is a validation set; what is certified is known where the
    objective has bounds. `selected` is None if nothing was selected: the weights are the last ones.
    """

    epochs: list[dict[str, Any]] = field(default_factory=list)
    selected: int | None = None
