"""Folders of images: any size, depth and kind is read without silent loss, and every bad file is named."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robnet_fx.errors import UsageError
from robnet_fx.zoo.data import load
from robnet_fx.zoo.picture import _bits
from robnet_fx.zoo.reading import Reading


def write(root: Path, file: str, pixels: np.ndarray | Image.Image | None = None, **options: Any) -> Path:
    """An image file below `root`, grey 4 x 5 if nothing is said."""
    path = root / file
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.full((4, 5), 7, np.uint8) if pixels is None else pixels
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(path, **options)
    return path


def rgb(red: int, green: int = 0, blue: int = 0, size: tuple[int, int] = (4, 5)) -> np.ndarray:
    return np.full((*size, 3), (red, green, blue), np.uint8)


def ramp(dtype: type, top: float = 255, size: tuple[int, int] = (4, 5)) -> np.ndarray:
    return np.linspace(0, top, size[0] * size[1]).astype(dtype).reshape(size)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Grey images 10, 20 and 30 of two classes."""
    root = tmp_path / "set"
    for part in ("train", "test"):
        write(root, f"{part}/cat/1.png", np.full((4, 5), 10, np.uint8))
        write(root, f"{part}/dog/1.png", np.full((4, 5), 20, np.uint8))
    write(root, "train/dog/2.png", np.full((4, 5), 30, np.uint8))
    return root


def refused(root: Path, reading: Reading | None = None, **known: Any) -> str:
    with pytest.raises(UsageError) as caught:
        load(str(root), reading or Reading(), **known)
    return str(caught.value).replace(str(root), "ROOT")


# which files


def test_a_folder_of_images(folder: Path) -> None:
    data = load(str(folder))
    assert (data.classes, data.axes, data.notes) == (("cat", "dog"), "nchw", ())
    assert data.input_shape == (1, 4, 5)
    assert data.y_train.tolist() == [0, 1, 1]
    assert data.x_train[:, 0, 0, 0].tolist() == [10, 20, 30]
    assert data.x_train.is_contiguous() and data.x_train.dtype == torch.uint8


def test_a_folder_gives_the_channels_asked_for(folder: Path) -> None:
    data = load(str(folder), shape=(3, 4, 5))
    assert data.x_train[2, :, 0, 0].tolist() == [30, 30, 30]
    assert data.notes == ("grey as three equal channels",)
    write(folder, "train/dog/2.png", rgb(30, 31, 32))
    assert load(str(folder)).x_train[1:, :, 0, 0].tolist() == [[20, 20, 20], [30, 31, 32]]
    data = load(str(folder), shape=(1, 9, 9))
    assert data.x_train[2, 0, 0, 0] == 31 and data.notes == ("colours as grey (1 image)",)
    write(folder, "train/dog/2.png", rgb(30, 30, 30))
    assert load(str(folder), shape=(1, 4, 5)).notes == ()
    assert "images have 1 or 3 channels, the network takes 2" in refused(folder, shape=(2, 4, 5))


@pytest.mark.parametrize("word", ["val", "valid", "validation"])
def test_a_validation_folder_validates(folder: Path, word: str) -> None:
    for name in ("cat", "dog"):
        write(folder, f"{word}/{name}/3.png", np.full((4, 5), 90, np.uint8))
    data = load(str(folder))
    assert data.x_val is not None and data.x_val.unique().tolist() == [90]
    assert data.y_val is not None and data.y_val.tolist() == [0, 1]
    write(folder, f"{word}/eel/3.png")
    assert "val/ has classes that train/ has not: eel" in refused(folder)


def test_what_is_no_image_is_skipped_and_said(folder: Path) -> None:
    for name in ("Thumbs.db", "notes.txt", ".DS_Store", "._1.png"):
        (folder / "train" / "cat" / name).write_bytes(b"no image")
    for hidden in (".ipynb_checkpoints", "cat/.thumbnails"):
        write(folder, f"train/{hidden}/1.png")
    write(folder, "train/cat/deeper/down/3.PNG", np.full((4, 5), 40, np.uint8), format="PNG")
    data = load(str(folder))
    assert data.notes == ("2 files skipped: .db, .txt",)
    assert sorted(data.x_train[data.y_train == 0][:, 0, 0, 0].tolist()) == [10, 40]


def test_a_folder_without_test_images_needs_a_share(tmp_path: Path) -> None:
    for number in range(10):
        for label, name in enumerate(("cat", "dog")):
            write(tmp_path, f"{name}/{number}.png", np.full((4, 5), 10 * number + label, np.uint8))
    message = refused(tmp_path)
    assert "it has no test part: its folders are cat/, dog/\n  remedy  --test-share 0.2" in message
    data = load(str(tmp_path), Reading(test_share=0.2, seed=3))
    assert data.notes == ("0.2 of every class as test images, by seed 3",)
    assert data.y_test.bincount().tolist() == [2, 2] and len(data.x_train) == 16
    pixels = torch.cat([data.x_train, data.x_test])[:, 0, 0, 0]
    assert len(pixels.unique()) == 20
    assert torch.equal(pixels % 10, torch.cat([data.y_train, data.y_test]))
    tmp_path.joinpath("train").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / name).rename(tmp_path / "train" / name)
    assert load(str(tmp_path), Reading(test_share=0.2, seed=3)).sha256 == data.sha256
    (tmp_path / "train").rename(tmp_path / "test")
    assert "no training part, only test" in refused(tmp_path)


def test_a_wrong_folder_is_refused(folder: Path) -> None:
    assert "there is a test part already" in refused(folder, Reading(test_share=0.2))
    write(folder, "train/eel/1.png")
    (folder / "train" / "eel" / "1.png").rename(folder / "train" / "eel" / "1.gif")
    assert "train/eel/ has no images (files ending in .jpg, .jpeg, .png" in refused(folder)
    (folder / "training").mkdir()
    assert "train/ and training/ both look like the train part" in refused(folder)
    (folder / "empty").mkdir()
    assert "it has no class folders: images go into <class>/" in refused(folder / "empty")


def test_classes_are_those_of_the_training_part(folder: Path) -> None:
    write(folder, "train/bee/1.png")
    data = load(str(folder))
    assert (data.classes, data.y_test.tolist()) == (("bee", "cat", "dog"), [1, 2])
    assert data.notes == ("no test images of bee",)
    (folder / "test" / "dog").rename(folder / "test" / "Dog")
    assert "test/ has classes that train/ has not: Dog" in refused(folder)


# sizes


def test_mixed_sizes_name_two_files_and_the_option(folder: Path) -> None:
    write(folder, "test/dog/big.png", ramp(np.uint8, size=(8, 9)))
    message = refused(folder, shape=(1, 6, 7))
    assert "train/cat/1.png is 4x5 (height x width), test/dog/big.png is 8x9\n  remedy  --resize 6x7" in message
    assert "--resize 4x5" in refused(folder)  # the usual size where the network says none
    data = load(str(folder), Reading((6, 7)), shape=(1, 6, 7))
    assert data.input_shape == (1, 6, 7)
    assert data.notes == ("resized to 6x7",)
    with Image.open(folder / "test/dog/big.png") as image:
        expected = np.asarray(image.resize((7, 6), Image.Resampling.BILINEAR))
    assert np.array_equal(data.x_test[2, 0].numpy(), expected)


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_sizes_of_any_depth_are_brought_together(tmp_path: Path, dtype: type, top: float) -> None:
    for part in ("train", "test"):
        write(tmp_path, f"{part}/a/1.tif", ramp(dtype, top, (8, 8)))
        write(tmp_path, f"{part}/b/1.tif", ramp(dtype, top, (16, 12)))
    data = load(str(tmp_path), Reading((8, 8)))
    pixels = data.x_train.double() / (255 if dtype is np.uint8 else 1)
    assert torch.allclose(pixels[0, 0].flatten(), torch.linspace(0, 1, 64, dtype=torch.float64), atol=2 / 255)
    assert torch.allclose(pixels[1].mean(), torch.tensor(0.5, dtype=torch.float64), atol=2 / 255)


# depth


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_are_kept(folder: Path, ending: str) -> None:
    for number, file in enumerate(sorted(folder.rglob("*.png"))):
        file.unlink()
        write(folder, f"{file.relative_to(folder).with_suffix('')}.{ending}", ramp(np.uint16, 65535) - number)
    data = load(str(folder))
    assert data.x_train.dtype == torch.float32
    assert data.notes == ("16-bit grey as v/65535",)
    assert torch.equal(
        (data.x_test[0, 0].double() * 65535).round().to(torch.int64), torch.tensor(ramp(np.int64, 65535))
    )


@pytest.mark.parametrize(
    ("stored", "bits"),
    [("I;16", 16), ("I;16B", 16), ("I;16N", 16), ("I;16S", 32), ("I;16BS", 32), ("I;32S", 32), ("I;12", 12)],
)
def test_what_the_decoder_reads_says_how_deep_it_is(stored: str, bits: int) -> None:
    image = Image.new("I", (5, 4))
    image.tile = [("raw", (0, 0, 5, 4), 0, (stored, 0, 1))]  # type: ignore[attr-defined]
    assert _bits(image) == bits
    image = Image.new("RGB", (5, 4))
    for name, depth in (("RGB;16B", 16), ("RGB;16L", 16), ("BGR;16", 8), ("BGR;15", 8), ("RGB", 8), ("P;4", 8)):
        image.tile = [("zip", (0, 0, 5, 4), 0, name)]  # type: ignore[attr-defined]
        assert _bits(image) == depth


def test_another_white(folder: Path) -> None:
    for file in folder.rglob("*.png"):
        write(folder, str(file.relative_to(folder)), ramp(np.uint16, 4095))
    data = load(str(folder))
    assert data.notes == ("16-bit grey as v/65535, none above 4095 (--white N if white is less)",)
    data = load(str(folder), Reading(white=4095))
    assert (float(data.x_train.max()), data.notes) == (1.0, ("pixels as v/4095",))
    message = refused(folder, Reading(white=1000))
    assert "5 of 5 images cannot be taken" in message and "from 0 to 4095, beyond a white of 1000" in message
    write(folder, "train/dog/2.png", ramp(np.uint8))
    data = load(str(folder))
    assert data.notes[:2] == ("8-bit as v/255", "16-bit grey as v/65535")
    assert float(data.x_train[2].max()) == 1
    assert "--white does not apply: train/dog/2.png has 8 bits" in refused(folder, Reading(white=4095))
    for file in folder.rglob("*.png"):
        write(folder, str(file.relative_to(folder)), ramp(np.uint8, 16, (8, 8)))
    data = load(str(folder), Reading((4, 4), white=16))
    assert data.x_train.dtype == torch.float32 and len(data.x_train[0].unique()) == 16  # resized after the scale


@pytest.mark.parametrize(
    ("pixels", "reason", "remedy"),
    [
        (ramp(np.int32, 70000), "has whole numbers of 32 bits", "--white N says"),
        (ramp(np.float32, 255), "from 0 to 255, beyond a white of 1", "--white N takes"),
        (ramp(np.float32) - 1000, "from -1000 to -745", "shift negative pixels"),
        (ramp(np.float32) * np.float32(np.nan), "NaN or infinite", "replace NaN"),
    ],
)
def test_thirty_two_bits(folder: Path, pixels: np.ndarray, reason: str, remedy: str) -> None:
    write(folder, "train/cat/2.tif", pixels)
    message = refused(folder)
    assert "1 of 6 images cannot be taken\n  train/cat/2.tif  has" in message
    assert reason in message and f"  remedy  {remedy}" in message


# kinds of images


def palette(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image).convert("P")


@pytest.mark.parametrize(
    ("picture", "pixel", "note"),
    [
        (palette(rgb(255, 0, 0)), [255, 0, 0], None),
        (Image.fromarray(np.full((4, 5, 4), (1, 2, 3, 255), np.uint8)), [1, 2, 3], "opaque alpha dropped"),
        (Image.fromarray(np.full((4, 5, 2), (9, 255), np.uint8)), [9, 9, 9], "opaque alpha dropped"),
        (Image.new("1", (5, 4), 1), [255, 255, 255], None),
        (Image.new("CMYK", (5, 4), (0, 255, 255, 0)), [255, 0, 0], "CMYK as RGB"),
    ],
)
def test_what_loses_nothing_is_read_and_said(
    folder: Path, picture: Image.Image, pixel: list[int], note: str | None
) -> None:
    write(folder, "train/cat/2.tif", picture)
    data = load(str(folder), shape=(3, 4, 5))
    assert data.x_train[1, :, 0, 0].tolist() == pixel
    notes = [text for text in data.notes if "equal channels" not in text]
    assert notes == ([f"{note} (1 image)"] if note else [])


def clear() -> Image.Image:
    image = Image.new("RGBA", (5, 4), (1, 2, 3, 255))
    image.putpixel((1, 1), (1, 2, 3, 254))
    return image


@pytest.mark.parametrize(
    ("picture", "options"),
    [
        (clear(), {}),
        (clear().convert("LA"), {}),
        (clear().convert("RGB"), {"transparency": (1, 2, 3)}),
        (palette(rgb(255, 0, 0)), {"transparency": bytes(256)}),
        (Image.fromarray(ramp(np.uint16, 65535)), {"transparency": 0}),
    ],
)
def test_transparent_pixels_are_not_dropped(folder: Path, picture: Image.Image, options: dict[str, Any]) -> None:
    write(folder, "train/cat/2.png", picture, **options)
    message = refused(folder)
    assert "  train/cat/2.png  has transparent pixels\n  remedy  lay images" in message


def deep_colour(path: Path, ending: str) -> None:
    """Sixteen bits in each of three channels, which Pillow cannot write."""
    if ending == "ppm":
        path.write_bytes(b"P6\n5 4\n65535\n" + bytes(range(120)))
        return
    import struct
    import zlib

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(30)) * 4)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))


@pytest.mark.parametrize("ending", ["png", "ppm"])
def test_colours_of_sixteen_bits_are_not_cut_to_eight(folder: Path, ending: str) -> None:
    deep_colour(folder / f"train/cat/2.{ending}", ending)
    assert f"train/cat/2.{ending}  has 16 bits in each of several channels" in refused(folder)


def test_several_frames_are_not_cut_to_one(folder: Path) -> None:
    frames = [Image.fromarray(np.full((4, 5), level, np.uint8)) for level in (1, 2, 3)]
    write(folder, "train/cat/2.tif", frames[0], save_all=True, append_images=frames[1:])
    assert "train/cat/2.tif  has 3 frames\n  remedy  save one image a file" in refused(folder)


def test_exif_turns_nothing_and_is_said(folder: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    write(folder, "train/cat/2.jpg", ramp(np.uint8), exif=exif)
    data = load(str(folder))
    assert data.notes == ("EXIF orientation left out, as stored (1 image)",)


# damage


def damages(path: Path) -> Iterator[None]:
    """Ways to break a file, one after the other."""
    whole = path.read_bytes()
    for content in (b"no image", b"", whole[: len(whole) // 2], whole[:1] + bytes(20) + whole[21:]):
        path.write_bytes(content)
        yield


@pytest.mark.parametrize("ending", ["png", "jpg", "bmp", "tif", "webp", "ppm"])
def test_damage_of_any_format_names_the_file(folder: Path, ending: str) -> None:
    path = write(folder, f"train/cat/2.{ending}", np.random.default_rng(0).integers(0, 255, (4, 5, 3), np.uint8))
    for _ in damages(path):
        message = refused(folder)
        assert f"data set ROOT: 1 of 6 images cannot be taken\n  train/cat/2.{ending}  " in message
        assert "\n  remedy  replace or remove" in message


def test_all_that_is_damaged_is_named_before_sizes_are(folder: Path) -> None:
    write(folder, "test/dog/9.png", ramp(np.uint8, size=(40, 40)))
    broken = [folder / "test/dog/9.png", folder / "train/cat/1.png", folder / "train/dog/2.png"]
    for path in broken:
        path.write_bytes(path.read_bytes()[:45])
    message = refused(folder)
    assert "3 of 6 images cannot be taken" in message
    assert all(f"\n  {path.relative_to(folder)}  " in message for path in broken)
    for number in range(30):
        (folder / f"train/cat/x{number}.png").write_bytes(b"nothing")
    message = refused(folder)
    assert "33 of 36 images" in message and "\n  and 13 more\n" in message


def test_a_failure_of_our_own_is_not_called_damage(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("robnet_fx.zoo.picture._eight_bits", explode)
    with pytest.raises(ZeroDivisionError):
        load(str(folder))


# large folders


class Counting:
    """A `Progress` that counts."""

    def __init__(self) -> None:
        self.done: dict[str, int] = {}

    @contextmanager
    def task(self, name: str, total: int) -> Iterator[Any]:
        self.done[name], self.name = 0, name
        yield self
        assert self.done[name] == total

    def advance(self, steps: int = 1, **_: float | str) -> None:
        self.done[self.name] += steps


def test_reading_shows_progress_and_needs_its_memory_once(tmp_path: Path) -> None:
    for part in ("train", "test"):
        for label in ("a", "b"):
            write(tmp_path, f"{part}/{label}/0.png", rgb(1, 2, 3, (300, 200)))
            for number in range(1, 12):
                (tmp_path / f"{part}/{label}/{number}.png").symlink_to(tmp_path / f"{part}/{label}/0.png")
    progress = Counting()
    load(str(tmp_path))  # imports what decoders import
    tracemalloc.start()
    try:
        data = load(str(tmp_path), progress=progress)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert progress.done == {"headers": 48, "read train": 24, "read test": 24}
    assert peak < 1.3 * (data.x_train.numel() + data.x_test.numel())
