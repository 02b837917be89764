"""The data class, what a model's data set is, and the sets with names; .npz files and folders have their own tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from robnet_fx.errors import UsageError
from robnet_fx.zoo.data import Dataset, find, load


def headline(call: Callable[[], object]) -> str:
    """The first line of the UsageError that `call` raises."""
    with pytest.raises(UsageError) as caught:
        call()
    first, *rest = str(caught.value).splitlines()
    assert len(rest) <= 1
    return first


# digits


def test_digits_are_the_real_ones_in_pixel_levels() -> None:
    digits = load("digits")
    assert digits.input_shape == (1, 8, 8)
    assert digits.classes == tuple("0123456789")
    assert len(digits.x_train) + len(digits.x_test) == 1797
    assert 0.25 <= len(digits.x_test) / 1797 <= 0.31
    for images in (digits.x_train, digits.x_test):
        assert (int(images.min()), int(images.max())) == (0, 255)


def test_digits_are_stratified_and_train_never_shows_a_test_image() -> None:
    digits = load("digits")
    in_train, in_test = digits.y_train.bincount(), digits.y_test.bincount()
    share = in_test / (in_train + in_test)
    assert float((share - 0.3).abs().max()) < 0.01
    seen = {image.numpy().tobytes() for image in digits.x_train}
    assert not any(image.numpy().tobytes() in seen for image in digits.x_test)


def test_digits_are_the_same_every_time() -> None:
    assert load("digits").sha256 == load("digits").sha256
    assert load("digits").sha256 == "fbda5415f418ebc75f45a0d8e17488ab948adb81a94fbe928299c5de29e51483"


# the data class


def small(**changes: object) -> Dataset:
    fields: dict[str, object] = {
        "name": "small",
        "x_train": torch.zeros(4, 1, 5, 5, dtype=torch.uint8),
        "y_train": torch.tensor([0, 1, 0, 1]),
        "x_test": torch.ones(2, 1, 5, 5, dtype=torch.uint8),
        "y_test": torch.tensor([1, 0]),
        "classes": ("a", "b"),
    }
    return Dataset(**(fields | changes))  # type: ignore[arg-type]


def test_the_digest_follows_the_content_not_the_names() -> None:
    assert small(name="other", classes=("x", "y")).sha256 == small().sha256
    assert small(y_test=torch.tensor([1, 1])).sha256 != small().sha256
    assert small(x_train=torch.ones(4, 1, 5, 5, dtype=torch.uint8)).sha256 != small().sha256


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": torch.zeros(4, 1, 5, 5, dtype=torch.int32)}, "data set small: x_train must be uint8 or float"),
        (
            {"x_train": torch.zeros(4, 1, 5, 5)},
            "data set small: train images are torch.float32, test images torch.uint8",
        ),
        (
            {"x_test": torch.full((2, 1, 5, 5), 1.5)},
            "data set small: test: float images must lie in [0, 1], not from 1.5",
        ),
        ({"x_test": torch.full((2, 1, 5, 5), torch.nan)}, "data set small: test: float images must lie in [0, 1]"),
        (
            {"x_val": torch.zeros(2, 1, 5, 5, dtype=torch.uint8), "y_val": torch.tensor([0, 7])},
            "data set small: val: lab",
        ),
        ({"x_test": torch.zeros(2, 25, dtype=torch.uint8)}, "data set small: x_test must be uint8"),
        ({"y_train": torch.zeros(4, dtype=torch.int32)}, "data set small: y_train must be int64"),
        ({"y_test": torch.zeros(3, dtype=torch.int64)}, "data set small: test: images"),
        ({"y_test": torch.tensor([0, 2])}, "data set small: test: labels run from 0 to 2"),
        ({"y_train": torch.tensor([0, 1, -1, 0])}, "data set small: train: labels run from -1 to 1"),
        ({"x_test": torch.zeros(2, 3, 5, 5, dtype=torch.uint8)}, "data set small: train images are 1x5x5, test"),
        (
            {"x_test": torch.zeros(0, 1, 5, 5, dtype=torch.uint8), "y_test": torch.zeros(0, dtype=torch.int64)},
            "data set small: test: the data set holds no images",
        ),
    ],
)
def test_an_impossible_data_set_is_refused(changes: dict[str, object], message: str) -> None:
    assert headline(lambda: small(**changes)).startswith(message)


def test_a_network_of_another_shape_is_refused() -> None:
    small().check_fit((1, 5, 5), 2)
    small().check_fit((1, 5, 5), 3)
    assert headline(lambda: small().check_fit((3, 5, 5), 2)).endswith("images are 1x5x5, the network takes 3x5x5")
    assert headline(lambda: small().check_fit((1, 5, 5), 1)).endswith("there are 2 classes, the network has 1")


# axes


def test_axes_become_known_once() -> None:
    images = torch.arange(4 * 2 * 3 * 5, dtype=torch.uint8).view(4, 2, 3, 5)
    raw = small(x_train=images, x_test=images[:2], x_val=images[1:3], y_val=torch.tensor([0, 1]), axes=None)
    assert raw.sizes == (2, 3, 5)
    assert "unknown order" in headline(lambda: raw.input_shape)
    last = raw.channels_first("nhwc")
    assert (last.input_shape, last.axes) == ((5, 2, 3), "nchw")
    assert "channels last" in last.notes
    for part, (moved, labels) in last.parts.items():
        assert torch.equal(moved, raw.parts[part][0].permute(0, 3, 1, 2))
        assert moved.is_contiguous()
        assert torch.equal(labels, raw.parts[part][1])
    assert raw.channels_first("nchw").input_shape == (2, 3, 5)
    assert raw.channels_first("nhw").input_shape == (1, 2, 3, 5)
    assert "not 'hwcn'" in headline(lambda: raw.channels_first("hwcn"))
    assert last.channels_first("nchw") is last
    assert "are not 'nhwc'" in headline(lambda: last.channels_first("nhwc"))


def test_a_folder_of_another_size_is_told_the_option() -> None:
    with pytest.raises(UsageError, match=r"images are 1x5x5, the network takes 1x8x9\n  remedy  --resize 8x9$"):
        small(resizable=True).check_fit((1, 8, 9), 2)
    with pytest.raises(UsageError, match=r"--resize 8x9$"):
        small(resizable=True).check_fit((8, 9, 1), 2)


def test_the_digest_covers_the_validation_part() -> None:
    images, labels = torch.zeros(2, 1, 5, 5, dtype=torch.uint8), torch.tensor([0, 1])
    digests = {small().sha256, small(x_val=images, y_val=labels).sha256, small(x_val=images, y_val=1 - labels).sha256}
    assert len(digests) == 3


# find


def test_a_model_finds_its_data_set() -> None:
    assert find((1, 8, 8), 10, {}) == "digits"
    assert find((3, 32, 32), 10, {}) == "cifar10"
    assert find([1, 28, 28], 10, {}) == "mnist"
    assert find((3, 32, 32), 10, {"robnet_fx.data": "mine.npz"}) == "mine.npz"


@pytest.mark.parametrize(("shape", "classes"), [((3, 32, 32), 100), ((1, 128, 128), 4)])
def test_a_model_without_a_known_data_set_is_told_the_forms(shape: tuple[int, ...], classes: int) -> None:
    with pytest.raises(UsageError, match=r"(?s)no data set is known for .*remedy.*digits, cifar10, mnist.*\.npz"):
        find(shape, classes, {})


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match=r"(?s)unknown data set 'imagenet'.*digits, cifar10, mnist"):
        load("imagenet")


# cifar10 and mnist


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_no_network_is_a_usage_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_options: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("ROBNET_FX_CACHE", str(tmp_path))
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    first = headline(lambda: load(name))
    assert first.startswith(f"data set {name}: not in {tmp_path} and could not be downloaded")
    assert "no network" in first


def test_mnist_is_read_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBNET_FX_CACHE", str(tmp_path))
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, count in (("train", 3), ("t10k", 2)):
        pixels = np.full((count, 28, 28), count, np.uint8)
        head = np.array([0x803, count, 28, 28], ">i4").tobytes()
        (raw / f"{part}-images-idx3-ubyte").write_bytes(head + pixels.tobytes())
        head = np.array([0x801, count], ">i4").tobytes()
        (raw / f"{part}-labels-idx1-ubyte").write_bytes(head + bytes(range(count)))
    data = load("mnist")
    assert data.input_shape == (1, 28, 28)
    assert data.y_train.tolist() == [0, 1, 2]
    assert int(data.x_test.unique()) == 2
    assert data.classes == tuple("0123456789")


def test_real_cifar10_fits_the_interface(cifar10: Dataset) -> None:
    assert cifar10.input_shape == (3, 32, 32)
    assert (len(cifar10.x_train), len(cifar10.x_test)) == (25_000, 10_000)
    assert cifar10.y_test.bincount().tolist() == [1000] * 10
