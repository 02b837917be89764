""".npz files as people write them: read where the numbers settle it, refused with a remedy where they do not."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robnet_fx.errors import UsageError
from robnet_fx.zoo.data import Dataset, load
from robnet_fx.zoo.reading import AS_STORED, Reading

Arrays = dict[str, np.ndarray]


def images(count: int, *sizes: int, top: int = 255) -> np.ndarray:
    drawn = np.random.default_rng(count).integers(0, top + 1, (count, *sizes))
    drawn.flat[0], drawn.flat[1] = 0, top
    return drawn


@pytest.fixture
def arrays() -> Arrays:
    return {
        "x_train": images(6, 3, 4, 5).astype(np.uint8),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": images(3, 3, 4, 5).astype(np.uint8),
        "y_test": np.array([2, 1, 0]),
    }


@pytest.fixture
def read(tmp_path: Path) -> Any:
    def read(arrays: dict[str, Any], reading: Reading = AS_STORED, classes: int | None = None) -> Dataset:
        path = tmp_path / "mine.npz"
        np.savez(path, **arrays)
        return load(str(path), reading, classes=classes)

    return read


def refused(call: Any) -> str:
    """The message of the UsageError that `call` raises: it names the file."""
    with pytest.raises(UsageError) as caught:
        call()
    assert "mine.npz: " in str(caught.value).splitlines()[0]
    return str(caught.value)


def number(message: str) -> float:
    """The N of the `--white N` that a message proposes."""
    found = re.search(r"remedy.*--white ([0-9.]+)", message)
    assert found is not None, message
    return float(found[1])


def test_plain_arrays_stay_what_they_are(read: Any, arrays: Arrays) -> None:
    data = read(arrays)
    assert data.classes == ("0", "1", "2")
    assert (data.axes, data.sizes, data.notes) == (None, (3, 4, 5), ())
    for key, array in arrays.items():
        assert np.array_equal(getattr(data, key).numpy(), array)
    assert data.channels_first("nchw").input_shape == (3, 4, 5)


@pytest.mark.parametrize(
    "names",
    [
        "X_train Y_train X_test Y_test",
        "train_images train_labels test_images test_labels",
        "train-images train-label testing_images testing_label",
        "x_training y_training x_testing y_testing",
        "images_train labels_train images_test labels_test",
        "train_data train_targets test_data test_targets",
    ],
)
def test_the_usual_names(read: Any, arrays: Arrays, names: str) -> None:
    renamed = dict(zip(names.split(), arrays.values(), strict=True))
    assert read(renamed).sha256 == read(arrays).sha256


@pytest.mark.parametrize(
    "names", ["val_images val_labels", "x_val y_val", "X_valid y_valid", "validation_x validation_y"]
)
def test_a_validation_part_validates(read: Any, arrays: Arrays, names: str) -> None:
    extra = dict(zip(names.split(), (arrays["x_train"][:2], arrays["y_train"][:2]), strict=True))
    data = read(arrays | extra)
    assert torch.equal(data.x_val, torch.from_numpy(arrays["x_train"][:2]))
    assert data.y_val.tolist() == [0, 1]


@pytest.mark.parametrize("names", ["X y", "data target", "images labels", "x_train y_train"])
def test_a_file_without_test_images_needs_a_share(read: Any, names: str) -> None:
    x, y = images(40, 4, 5).astype(np.uint8), np.arange(40) % 2
    arrays = dict(zip(names.split(), (x, y), strict=True))
    message = refused(lambda: read(arrays))
    assert "no test part" in message and "remedy  --test-share 0.2" in message
    data = read(arrays, Reading(test_share=0.2, seed=5))
    assert (len(data.x_train), data.y_test.bincount().tolist()) == (32, [4, 4])
    assert data.notes == ("0.2 of every class as test images, by seed 5",)
    assert "leaves a part without images" in refused(lambda: read(arrays, Reading(test_share=0.001)))


def test_a_share_is_not_taken_of_a_file_with_test_images(read: Any, arrays: Arrays) -> None:
    assert "there is a test part already" in refused(lambda: read(arrays, Reading(test_share=0.2)))
    assert "for folders of images" in refused(lambda: read(arrays, Reading(resize=(4, 4))))


def test_scikit_learns_digits_as_they_are_saved(read: Any) -> None:
    from sklearn.datasets import load_digits

    bunch = {key: value for key, value in load_digits().items() if value is not None}
    bunch["frame"] = np.array([None], dtype=object)  # never looked at
    message = refused(lambda: read(bunch, Reading(test_share=0.3)))
    assert "which number is white? images is float64 from 0 to 16" in message
    data = read(bunch, Reading(test_share=0.3, white=number(message)))
    assert data.sizes == (8, 8)
    assert (data.x_train.dtype, float(data.x_train.max())) == (torch.float32, 1.0)
    assert "pixels as v/16" in data.notes


# labels


@pytest.mark.parametrize("kind", ["u1", "i4", "u2", "i8", "f4", "f8", "f2", ">i4"])
@pytest.mark.parametrize("column", [False, True])
def test_labels_of_any_type_and_as_a_column(read: Any, arrays: Arrays, kind: str, column: bool) -> None:
    changed = {key: arrays[key].astype(kind) for key in ("y_train", "y_test")}
    changed = {key: array[:, None] for key, array in changed.items()} if column else changed
    assert read(arrays | changed).sha256 == read(arrays).sha256


@pytest.mark.parametrize("kind", [np.uint8, np.float32, bool])
def test_one_hot_labels(read: Any, arrays: Arrays, kind: type) -> None:
    hot = {key: np.eye(4)[arrays[key]].astype(kind) for key in ("y_train", "y_test")}
    data = read(arrays | hot, classes=4)
    assert data.sha256 == read(arrays).sha256
    assert data.notes == ("one-hot labels",)
    assert "stored alike" in refused(lambda: read(arrays | {"y_test": hot["y_test"]}))
    hot["y_train"][2, :] = 1
    assert "not one-hot: its row 2 is [1, 1, 1, 1]" in refused(lambda: read(arrays | hot))


def test_labels_from_one_shift_where_the_network_has_as_many_logits(read: Any, arrays: Arrays) -> None:
    from_one = arrays | {key: arrays[key] + 1 for key in ("y_train", "y_test")}
    data = read(from_one, classes=3)
    assert data.y_train.tolist() == arrays["y_train"].tolist()
    assert data.notes == ("labels 1..3 taken as 0..2",)
    assert read(from_one, classes=4).y_test.tolist() == [3, 2, 1]
    assert read(from_one).y_test.tolist() == [3, 2, 1]
    two = {"y_train": np.array([1, 2, 1, 2, 1, 2]), "y_test": np.array([1, 2, 1])}
    assert read(arrays | two, classes=3).y_test.tolist() == [1, 2, 1]  # the third class may just be missing
    beyond = arrays | {"y_test": np.array([9, 1, 0])}
    message = refused(lambda: read(beyond, classes=3))
    assert "labels run from 0 to 9 (4 different ones), the network has 3 classes" in message


# pixels


@pytest.mark.parametrize("kind", ["i4", "i8", "u2", "i2", "f4", "f8", "f2", ">u2"])
def test_whole_numbers_that_make_use_of_255_are_levels(read: Any, arrays: Arrays, kind: str) -> None:
    changed = {key: arrays[key].astype(kind) for key in ("x_train", "x_test")}
    data = read(arrays | changed)
    assert data.sha256 == read(arrays).sha256
    assert data.notes and data.notes[0].endswith("as v/255")


@pytest.mark.parametrize("kind", ["f2", "f4", "f8"])
def test_floats_in_0_1_stay_floats(read: Any, arrays: Arrays, kind: str) -> None:
    changed = {key: (arrays[key] / 255).astype(kind) for key in ("x_train", "x_test")}
    data = read(arrays | changed)
    assert data.x_train.dtype == torch.float32
    assert np.array_equal(data.x_test.numpy(), changed["x_test"].astype(np.float32))
    black_and_white = {key: (array > 0.5).astype(kind) for key, array in changed.items()}
    assert float(read(arrays | black_and_white).x_test.max()) == 1
    masks = {key: array > 0.5 for key, array in changed.items()}
    assert read(arrays | masks).sha256 == read(arrays | black_and_white).sha256


def test_sixteen_bits_are_kept(read: Any, arrays: Arrays) -> None:
    deep = arrays | {
        key: images(len(arrays[key]), 3, 4, 5, top=65535).astype(np.uint16) for key in ("x_train", "x_test")
    }
    data = read(deep)
    assert data.notes == ("uint16 as v/65535",)
    assert np.array_equal(np.rint(data.x_test.numpy() * 65535.0), deep["x_test"])
    twelve = arrays | {key: deep[key] // 16 for key in ("x_train", "x_test")}
    assert "none above 4095 (--white N" in read(twelve).notes[0]
    data = read(twelve, Reading(white=4095))
    assert float(data.x_train.max()) == 1
    assert "goes up to 65535, beyond --white 4095\n  remedy  --white 65535" in refused(
        lambda: read(deep, Reading(white=4095))
    )


def level(top: float, kind: str) -> np.ndarray:
    return (images(6, 3, 4, 5, top=1000) * (top / 1000)).astype(kind)


@pytest.mark.parametrize(
    ("top", "kind"),
    [
        (254.7, "f4"),
        (16, "u1"),
        (16, "f8"),
        (1, "u1"),
        (63, "i8"),
        (4095, "i2"),
        (4000, "f4"),
        (70000, "i4"),
        (2.5, "f2"),
    ],
)
def test_an_unsettled_scale_is_asked_for_and_the_answer_works(read: Any, arrays: Arrays, top: float, kind: str) -> None:
    unsettled = arrays | {"x_train": level(top, kind), "x_test": level(top, kind)[:3]}
    message = refused(lambda: read(unsettled))
    assert f"which number is white? x_train is {np.dtype(kind)} from 0 to " in message
    data = read(unsettled, Reading(white=number(message)))
    assert 0.2 < float(data.x_train.max()) <= 1
    assert data.x_train.dtype == torch.float32
    assert f"pixels as v/{number(message):g}" in data.notes


def test_parts_on_different_scales_are_not_read_as_one(read: Any, arrays: Arrays) -> None:
    assert "x_train is uint8 from 0 to 255, x_test is float64 from 0 to 1" in refused(
        lambda: read(arrays | {"x_test": arrays["x_test"] / 255})
    )
    assert "x_test is uint8 from 0 to 1" in refused(lambda: read(arrays | {"x_test": arrays["x_test"] // 255}))
    floats = {key: arrays[key] / 255 for key in ("x_train", "x_test")}
    assert "floats in 0..1 already" in refused(lambda: read(arrays | floats, Reading(white=255)))


@pytest.mark.parametrize("white", [None, 255.0])
def test_normalised_images_and_no_numbers_are_refused(read: Any, arrays: Arrays, white: float | None) -> None:
    reading = Reading(white=white)
    normalised = {key: arrays[key] / 127.5 - 1 for key in ("x_train", "x_test")}
    message = refused(lambda: read(arrays | normalised, reading))
    assert "x_train runs from -1 to 1" in message and "undo what was done" in message
    holes = arrays["x_test"].astype(float)
    holes[0, 0, 0, 0] = np.nan
    assert "x_test holds NaN or infinite numbers" in refused(lambda: read(arrays | {"x_test": holes}, reading))
    assert "must hold numbers, is complex" in refused(lambda: read(arrays | {"x_test": holes * 1j}, reading))


# what cannot be a data set


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y_test": np.array(["a", "b", "c"])}, "y_test must hold whole numbers, is <U1\n  remedy  number the classes"),
        ({"y_test": np.array([0, 1, 0.5])}, "y_test must hold whole numbers, is float64 from 0 to 1"),
        ({"y_test": np.array([0, np.nan, 1])}, "y_test must hold whole numbers"),
        ({"y_test": np.array([0, 1, 2**40])}, "these number no classes"),
        ({"y_test": np.array([0, 1, 2**20])}, "labels run from 0 to 1048576"),
        ({"y_test": np.array([0, 1, None])}, "y_test holds Python objects"),
        ({"y_test": np.zeros((3, 2, 2))}, "y_test must be [N], [N, 1] or one-hot [N, classes], is [3, 2, 2]"),
        ({"y_test": np.array(1)}, "do not belong together: x_test is [3, 3, 4, 5], y_test is []"),
        ({"x_test": np.array([[1, 2], [3]], dtype=object)}, "x_test holds Python objects"),
        ({"x_test": np.zeros((3, 60), np.uint8)}, "is [3, 60]\n  remedy  reshape it"),
        ({"x_test": np.zeros((3, 1, 2, 2, 2, 2), np.uint8)}, "with two to four sizes, is [3, 1, 2, 2, 2, 2]"),
        ({"x_test": np.zeros((3, 3, 4, 4), np.uint8)}, "train images are 3x4x5, test images 3x4x4"),
        ({"y_test": np.zeros(2, np.int64)}, "do not belong together"),
        ({"y_train": np.array([0, 1, 2, 0, 1, -2])}, "labels run from -2 to 2\n  remedy  number the classes from 0"),
        ({"y_train": np.zeros(0, np.int64), "x_train": np.zeros((0, 3, 4, 5), np.uint8)}, "x_train holds no images"),
        ({"train_images": np.zeros((6, 3, 4, 5))}, "x_train and train_images both look like images"),
    ],
)
def test_a_wrong_npz_says_what_is_wrong(read: Any, arrays: Arrays, changes: Arrays, message: str) -> None:
    assert message in refused(lambda: read(arrays | changes))


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("y_test", "no labels of the test part; it has x_train, y_train, x_test\n  remedy  name the arrays"),
        ("x_train", "the file has no images of the train part"),
    ],
)
def test_an_npz_without_an_array_says_what_it_has(read: Any, arrays: Arrays, missing: str, message: str) -> None:
    del arrays[missing]
    assert message in refused(lambda: read(arrays))


def test_an_npz_without_a_part_says_what_it_has(read: Any, arrays: Arrays) -> None:
    assert "no images; it has foo, bar" in refused(lambda: read({"foo": arrays["x_test"], "bar": arrays["y_test"]}))
    only_test = {key: arrays[key] for key in ("x_test", "y_test")}
    assert "no training part, only test" in refused(lambda: read(only_test))
    val = {
        "x_train": arrays["x_train"],
        "y_train": arrays["y_train"],
        "x_val": arrays["x_test"],
        "y_val": arrays["y_test"],
    }
    assert "rename the validation part to test" in refused(lambda: read(val))


def test_a_broken_npz_is_refused(tmp_path: Path, arrays: Arrays) -> None:
    path = tmp_path / "mine.npz"
    assert refused(lambda: load(str(path))).endswith("mine.npz: no such file")
    for content in (b"", b"not a zip file", b"PK\x03\x04 nor this"):
        path.write_bytes(content)
        assert "cannot be read as .npz" in refused(lambda: load(str(path)))
    np.savez_compressed(path, **arrays)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert "cannot be read as .npz" in refused(lambda: load(str(path)))
    path.write_bytes(whole[:80] + b"\x00" * 20 + whole[100:])
    assert "cannot be read as .npz" in refused(lambda: load(str(path)))
    with io.BytesIO() as single:
        np.save(single, arrays["x_test"])
        path.write_bytes(single.getvalue())
    assert "a single array" in refused(lambda: load(str(path)))


@pytest.mark.parametrize(
    ("sizes", "axes", "shape"), [((3, 4, 5), "nhw", (1, 3, 4, 5)), ((3, 4, 5, 2), "nhwc", (2, 3, 4, 5))]
)
def test_volumes(read: Any, arrays: Arrays, sizes: tuple[int, ...], axes: str, shape: tuple[int, ...]) -> None:
    volumes = {"x_train": images(6, *sizes).astype(np.uint8), "x_test": images(3, *sizes).astype(np.uint8)}
    assert read(arrays | volumes).channels_first(axes).input_shape == shape
