"""Public networks, hardly perturbed: all but one of the right answers are certified, and none of those falls."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor

import robnet_fx
from robnet_fx.inspect.coverage import coverage
from robnet_fx.verify import Limits, certify
from robnet_fx.verify.attack import attack
from robnet_fx.zoo.data import Dataset

FIELD = robnet_fx.BiasField(3, 0.05 / 255)
IMAGES = 20

_CIFAR10 = (0.4914, 0.4822, 0.4465)
SCALINGS = {
    "A": (None, None),
    "B": (_CIFAR10, (0.2471, 0.2435, 0.2616)),
    "C": (_CIFAR10, (0.2023, 0.1994, 0.2010)),
    "D": ((0.485, 0.456, 0.406), 0.225),
    "M": (0.1307, 0.3081),
}
NETWORKS = {
    "cifar_base_kw": ("cifar10", "D"),
    "resnet_2b": ("cifar10", "B"),
    "cifar10_small": ("cifar10", "A"),  # channels last
    "Convnet_maxpool": ("mnist", "A"),
    "ffnnSIGMOID__Point_6x200": ("mnist", "A"),
    "pgd_2_3_16": ("cifar10", "C"),  # a small vision transformer
    "mnist_0.1": ("mnist", "M"),
    "cifar_base": ("cifar10", "B"),
}


@pytest.fixture(scope="session")
def test_images(data_dir: Path, cifar10: Dataset) -> dict[str, tuple[Tensor, Tensor]]:
    """The first test images and labels of the data sets."""
    with gzip.open(data_dir / "mnist" / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + IMAGES * 784), np.uint8, offset=16).reshape(-1, 1, 28, 28)
    with gzip.open(data_dir / "mnist" / "t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read(8 + IMAGES), np.uint8, offset=8).astype(np.int64)
    return {
        "cifar10": (cifar10.x_test[:IMAGES], cifar10.y_test[:IMAGES]),
        "mnist": (torch.from_numpy(pixels.copy()), torch.from_numpy(labels)),
    }


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_right_is_certified(
    name: str, models_dir: Path, test_images: dict[str, tuple[Tensor, Tensor]], record_property
) -> None:
    data, scaling = NETWORKS[name]
    images, labels = test_images[data]
    mean, std = SCALINGS[scaling]
    # Loading compares the network with onnxruntime.
    net = robnet_fx.bound(models_dir / f"{name}.onnx", FIELD, "rsip-ssip", mean=mean, std=std, example=images[:2] / 255)
    certificate = certify(net, images, labels, limits=Limits(boxes=1))
    right, certified = certificate.correct, certificate.certified
    fooled = attack(net, images[certified], labels[certified]).adversarial
    counts = {"correct": int(right.sum()), "certified": int(certified.sum()), "fooled": int(fooled.sum())}
    for count, value in counts.items():
        record_property(count, value)
    assert counts["correct"] >= IMAGES / 2
    assert counts["certified"] >= counts["correct"] - 1
    assert counts["fooled"] == 0


@pytest.mark.parametrize("name", ["inception_v1", "shufflenet", "squeezenet"])
def test_files_of_the_onnx_package_are_taken_whole(name: str) -> None:
    """Opset 9, from Caffe2, 224 x 224: local response normalisation, uneven pools, classes over pixels."""
    path = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light" / f"light_{name}.onnx"
    if not path.is_file():
        pytest.skip("this version of onnx brings no networks")
    found = coverage(path, FIELD)  # loading compares the network with onnxruntime
    assert found.gaps == ()
