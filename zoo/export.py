"""Networks of the zoo to ONNX files: one file, any batch size, input `image`, output `logits`."""

from __future__ import annotations

from pathlib import Path

import torch

from robnet_fx.interchange.network import write_onnx
from robnet_fx.zoo.data import METADATA_KEY
from robnet_fx.zoo.digits import train_digits
from robnet_fx.zoo.models import architecture, fresh


def export(name: str, path: str | Path, seed: int = 0) -> None:
    """Write a network of the zoo: digits trained, every other one with the random weights that `seed` gives.

    The file's metadata names the network's data set. The same seed gives the same bytes. Raises UsageError for an
    unknown name, RobnetError where the file cannot be written; then nothing is.
    """
    entry = architecture(name)
    module = train_digits(seed) if name == "digits" else fresh(name, seed)
    metadata = {} if entry.data is None else {METADATA_KEY: entry.data}
    write_onnx(module, path, torch.full((2, *entry.input_shape), 0.5), metadata=metadata)
