"""Data as people have it through the commands: a MedMNIST-style .npz, and folders of sixteen bits and mixed sizes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from robnet_fx.frontend.onnx.load import load_onnx
from robnet_fx.zoo.data import load
from robnet_fx.zoo.reading import METADATA_KEY
from tests.cli.test_errors import refused
from tests.small import digits

FIELD = ("--order", 1, "--eps", 40)
SHORT = ("--epochs", 1, "--batch-size", 32)
IMAGES, LABELS = (part.numpy() for part in digits())
PARTS = {"train": slice(0, 90), "val": slice(90, 120), "test": slice(1500, 1520)}


def document(result):
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def panel(result):
    """The panel's text without its frame and line breaks."""
    return " ".join(result.stderr.replace("│", " ").split())


def medmnist(path: Path) -> Path:
    arrays = {}
    for part, some in PARTS.items():
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = IMAGES[some, 0], LABELS[some, None].astype(np.uint8)
    np.savez(path, **arrays)
    return path


def deep_folder(root: Path, parts: tuple[str, ...] = ("train", "test"), top: int = 65535) -> Path:
    """The digits in sixteen bits, every third one drawn twice as large."""
    for part in parts:
        some = PARTS[part or "train"]
        for number, (image, label) in enumerate(zip(IMAGES[some, 0], LABELS[some], strict=True)):
            pixels = (image.astype(np.uint32) * top // 255).astype(np.uint16)
            place = root / part / f"digit{label}" / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.repeat(2, 0).repeat(2, 1) if number % 3 == 0 else pixels).save(place)
    return root


def test_a_medmnist_file_from_training_to_certificate(run, model):
    data = ("--data", medmnist(Path("pathmnist.npz")))
    trained = run("robustify", model, *FIELD, *SHORT, *data, "--json")
    found = document(trained)
    assert "pathmnist.npz: 90 training, 30 validation, 20 test images" in panel(trained)
    assert found["images"] == {"train": 90, "validation": 30, "test": 20}
    assert found["data_notes"] == ["grey, without a channel axis"]
    again = document(run("certify", "net.robust.onnx", *FIELD, "--json"))
    assert again["certified_accuracy"] == found["after"]["certified"] > 0
    assert again["clean_accuracy"] == found["after"]["clean"] > 0.5


def test_a_deep_folder_of_mixed_sizes_from_training_to_certificate(run, model):
    data = ("--data", deep_folder(Path("scans"), top=4095))
    headline, remedy = refused(run("robustify", model, *FIELD, *data), 2)
    assert "is 16x16" in headline and "is 8x8" in headline
    option = ("--resize", remedy.split("--resize ")[1].split()[0])
    assert option == ("--resize", "8x8")
    trained = run("robustify", model, *FIELD, *SHORT, *data, *option, "--white", 4095, "--augment", "--json")
    found = document(trained)
    assert "scans: 90 training, 20 test images; pixels as v/4095; resized to 8x8" in panel(trained)
    assert found["images"] == {"train": 81, "validation": 9, "test": 20}
    arguments = json.loads((Path(found["files"]["run"]) / "arguments.json").read_text())
    assert arguments["data_notes"] == found["data_notes"]
    assert found["data_notes"] == ["pixels as v/4095", "resized to 8x8", "no test images of digit2"]

    again = document(run("certify", "net.robust.onnx", *FIELD, "--json"))  # how to read them is in the file
    assert again["data_notes"] == found["data_notes"]
    assert again["certified_accuracy"] == found["after"]["certified"] > 0
    assert again["clean_accuracy"] == found["after"]["clean"] > 0.5
    shown = document(run("inspect", "net.robust.onnx", *FIELD, "--image", 2, "--html", "page.html", "--json"))
    assert shown["data_notes"] == found["data_notes"]


def test_a_folder_without_test_images_is_split_once(run, model):
    data = ("--data", deep_folder(Path("scans"), ("",)), "--resize", "8x8")
    headline, remedy = refused(run("certify", model, *FIELD, *data), 2)
    assert "no test part" in headline and "--test-share 0.2" in remedy
    trained = document(run("robustify", model, *FIELD, *SHORT, *data, "--test-share", 0.2, "--seed", 3, "--json"))
    assert trained["data_notes"][-1] == "0.2 of every class as test images, by seed 3"
    remembered = json.loads(load_onnx(Path("net.robust.onnx")).metadata[METADATA_KEY])
    assert remembered == {"resize": [8, 8], "test_share": 0.2, "seed": 3}
    attacked = document(run("attack", "net.robust.onnx", *FIELD, "--seed", 5, "--steps", 2, "--json"))
    assert attacked["data_notes"] == trained["data_notes"]
    assert attacked["clean_accuracy"] == trained["after"]["clean"]
    headline, remedy = refused(run("certify", "net.robust.onnx", *FIELD, "--test-share", 0.5), 2)
    assert "judge it on training images" in headline and "leave out --test-share" in remedy
    assert "classes 0 digit0, 1 digit1, 2" in panel(run("check", model, *data, "--test-share", 0.2))
    Path("scans").rename("elsewhere")
    headline, remedy = refused(run("certify", "net.robust.onnx", *FIELD), 2)
    assert headline.endswith("the model is for 'scans', which is not here") and "--data" in remedy


def test_how_to_read_is_said_right_or_refused(run, model):
    for option in (("--resize", "8"), ("--resize", "8x"), ("--white", 0), ("--test-share", 2)):
        (line,) = refused(run("certify", model, *FIELD, *option), 2)
        assert line.startswith(f"error: {option[0]} takes ")
    for command in ("robustify", "certify", "attack", "inspect"):
        (line,) = refused(run(command, model, *FIELD, "--white", 16), 2)
        assert line == (
            "error: data set digits: --white does not apply: it is for folders and .npz files, and digits is what it is"
        )
    medmnist(Path("mine.npz"))
    (line,) = refused(run("certify", model, *FIELD, "--data", "mine.npz", "--resize", "8×8"), 2)
    assert line.endswith(
        "--resize does not apply: the images of an .npz file have one size; it is for folders of images"
    )


def test_the_same_images_whatever_their_axes(run, model):
    data = load("digits")
    arrays = {name: getattr(data, name).numpy()[:10] for name in ("x_train", "y_train", "x_test", "y_test")}
    found = []
    for shape in ((1, 8, 8), (8, 8, 1), (8, 8)):
        np.savez("mine.npz", **arrays | {name: arrays[name].reshape(-1, *shape) for name in ("x_train", "x_test")})
        arguments = ("--data", "mine.npz", "--method", "ibp", "--json")
        found.append(document(run("certify", model, *FIELD, *arguments)))
        for sample in found[-1]["samples"]:
            sample.pop("seconds", None)
    first, *others = found
    assert all(other["samples"] == first["samples"] for other in others)
    assert all(other["data_sha256"] == first["data_sha256"] for other in others)
