"""Every form of `--data`, what a model's data set is, and one clear headline for everything that can be wrong."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image

from robnet_fx.errors import UsageError
from robnet_fx.zoo.data import Dataset, find, load, split

Arrays = dict[str, np.ndarray]


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
        ({"x_train": torch.zeros(4, 1, 5, 5)}, "data set small: x_train must be uint8"),
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


# split


def test_split_sets_aside_a_share_of_every_class() -> None:
    digits = load("digits")
    (x, y), (x_val, y_val) = split(digits, 0.1, seed=3)
    assert len(x) + len(x_val) == len(digits.x_train)
    whole, kept, aside = digits.y_train.bincount(), y.bincount(), y_val.bincount()
    assert torch.equal(kept + aside, whole)
    assert float((aside / whole - 0.1).abs().max()) < 0.01
    train = {image.numpy().tobytes() for image in x}
    assert not any(image.numpy().tobytes() in train for image in x_val)


def test_split_depends_on_the_seed_alone() -> None:
    digits = load("digits")
    torch.manual_seed(7)
    _, (_, first) = split(digits, 0.2, seed=0)
    torch.manual_seed(8)
    state = torch.get_rng_state()
    _, (images, second) = split(digits, 0.2, seed=0)
    assert torch.equal(first, second)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(images, split(digits, 0.2, seed=1)[1][0])


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_split_refuses_an_impossible_fraction(fraction: float) -> None:
    assert "validation fraction" in headline(lambda: split(small(), fraction, 0))


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


# .npz


@pytest.fixture
def arrays() -> Arrays:
    generator = np.random.default_rng(0)
    return {
        "x_train": generator.integers(0, 256, (6, 3, 4, 5), dtype=np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2], dtype=np.int64),
        "x_test": generator.integers(0, 256, (3, 3, 4, 5), dtype=np.uint8),
        "y_test": np.array([2, 1, 0], dtype=np.int64),
    }


def test_an_npz_round_trips(tmp_path: Path, arrays: Arrays) -> None:
    np.savez(tmp_path / "mine.npz", **arrays)
    data = load(str(tmp_path / "mine.npz"))
    assert data.classes == ("0", "1", "2")
    assert data.input_shape == (3, 4, 5)
    for key, array in arrays.items():
        assert np.array_equal(getattr(data, key).numpy(), array)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_train": np.zeros((6, 3, 4, 5), np.float32)}, "x_train must be uint8, is float32"),
        ({"y_test": np.zeros(3, np.int32)}, "y_test must be int64, is int32"),
        ({"y_test": np.array(["a", "b", "c"])}, "y_test must be int64, is <U1"),
        ({"y_test": np.array([0, 1, None])}, "cannot be read as .npz"),
        ({"x_test": np.zeros((3, 60), np.uint8)}, "x_test must be uint8 [N, C, H, W]"),
        ({"y_test": np.zeros(2, np.int64)}, "test: images"),
        ({"y_train": np.array([0, 1, 2, 0, 1, -2])}, "train: labels run from -2 to 2"),
        ({"y_train": np.zeros(0, np.int64), "x_train": np.zeros((0, 3, 4, 5), np.uint8)}, "no images"),
    ],
)
def test_a_wrong_npz_has_one_headline(tmp_path: Path, arrays: Arrays, changes: Arrays, message: str) -> None:
    np.savez(tmp_path / "mine.npz", **(arrays | changes))
    first = headline(lambda: load(str(tmp_path / "mine.npz")))
    assert message in first
    assert "mine.npz" in first


def test_an_npz_without_an_array_names_it(tmp_path: Path, arrays: Arrays) -> None:
    del arrays["y_test"], arrays["x_test"]
    np.savez(tmp_path / "mine.npz", **arrays)
    assert headline(lambda: load(str(tmp_path / "mine.npz"))).endswith("the file has no x_test, y_test")


def test_a_broken_npz_is_refused(tmp_path: Path, arrays: Arrays) -> None:
    path = tmp_path / "mine.npz"
    assert headline(lambda: load(str(path))).endswith("mine.npz: no such file")
    for content in (b"", b"not a zip file", b"PK\x03\x04 nor this"):
        path.write_bytes(content)
        assert "cannot be read as .npz" in headline(lambda: load(str(path)))
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as .npz" in headline(lambda: load(str(path)))
    path.write_bytes(whole[:80] + b"\x00" * 20 + whole[100:])
    assert "cannot be read as .npz" in headline(lambda: load(str(path)))


# a folder of images


def write(root: Path, file: str, size: tuple[int, int] = (5, 4), mode: str = "RGB", value: int = 7) -> None:
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode != "RGB" else (value, value + 1, value + 2)).save(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for part in ("train", "test"):
        write(tmp_path, f"{part}/cat/1.png", value=10)
        write(tmp_path, f"{part}/dog/1.png", value=20)
    write(tmp_path, "train/dog/2.png", value=30)
    return tmp_path


def test_a_folder_of_images(folder: Path) -> None:
    data = load(str(folder))
    assert data.classes == ("cat", "dog")
    assert data.input_shape == (3, 4, 5)
    assert data.y_train.tolist() == [0, 1, 1]
    assert data.x_train[:, :, 0, 0].tolist() == [[10, 11, 12], [20, 21, 22], [30, 31, 32]]
    assert data.x_train.is_contiguous()


def test_a_folder_gives_the_channels_asked_for(folder: Path) -> None:
    assert load(str(folder), channels=1).input_shape == (1, 4, 5)
    for file in folder.rglob("*.png"):
        with Image.open(file) as image:
            gray = image.convert("L")
        gray.save(file)
    assert load(str(folder)).input_shape == (1, 4, 5)
    assert load(str(folder), channels=3).input_shape == (3, 4, 5)
    assert "the network takes 2" in headline(lambda: load(str(folder), channels=2))


def test_a_folder_of_mixed_sizes_names_the_file(folder: Path) -> None:
    write(folder, "test/dog/big.png", size=(9, 8))
    first = headline(lambda: load(str(folder)))
    assert "big.png is 9x8 pixels" in first
    assert "5x4" in first


def test_a_wrong_folder_is_refused(folder: Path) -> None:
    broken = folder / "train" / "cat" / "2.png"
    broken.write_bytes(b"no image")
    assert "2.png cannot be read as an image" in headline(lambda: load(str(folder)))
    broken.unlink()
    write(folder, "train/cat/2.png", mode="I;16")
    assert "2.png has more than eight bits" in headline(lambda: load(str(folder)))
    broken.unlink()
    write(folder, "train/eel/1.png")
    assert "train/ has the classes cat, dog, eel, test/ cat, dog" in headline(lambda: load(str(folder)))
    (folder / "test").rename(folder / "validation")
    assert headline(lambda: load(str(folder))).endswith("it has no test/ folder")


def test_a_class_without_images_is_refused(folder: Path) -> None:
    (folder / "train" / "eel").mkdir()
    assert "eel" in headline(lambda: load(str(folder)))


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
