"""What the cells of a table share: images as the network takes them, and which of them have near copies."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from robnet_fx.errors import UsageError
from robnet_fx.reproduce.bench import Settings, open_bench
from robnet_fx.zoo.data import AS_STORED
from robnet_fx.zoo.tables import Cell, Published

CELL = Cell("digits", "mri", "std", 40, 1, Published(97.8, 0.0))


def test_a_folder_of_slices_comes_to_the_networks_size_with_its_copies(tmp_path):
    """As Kaggle has them: Training/ and Testing/, in colour and of mixed sizes."""
    random = np.random.default_rng(0)
    for part in ("Training", "Testing"):
        for name in ("glioma", "notumor"):
            (tmp_path / part / name).mkdir(parents=True)
            for number, size in enumerate((24, 32, 40)):
                picture = Image.fromarray(random.integers(0, 256, (8, 8), dtype=np.uint8)).resize((size, size))
                picture.convert("RGB").save(tmp_path / part / name / f"{number}.png")
    copy = Image.open(tmp_path / "Training" / "glioma" / "1.png")
    copy.point(lambda level: min(level + 3, 255)).save(tmp_path / "Testing" / "notumor" / "2.png")

    bench, opened = open_bench(CELL, str(tmp_path), AS_STORED, Settings(device="cpu"), tmp_path / "out")
    assert bench.data.x_test.shape == (6, 1, 8, 8) and opened.axes == "nchw"
    assert bench.data.notes and '"resize": [8, 8]' in bench.remembered["robnet_fx.reading"]
    assert bench.copied.tolist() == [False] * 5 + [True]


def test_an_array_lies_as_the_network_takes_it(tmp_path):
    images, labels = np.zeros((4, 8, 8), np.uint8), np.arange(4)
    images[:, 0] = 255
    np.savez(tmp_path / "few.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    bench, _ = open_bench(CELL, str(tmp_path / "few.npz"), AS_STORED, Settings(test_limit=2), tmp_path / "out")
    assert bench.data.x_train.shape == (4, 1, 8, 8) and bench.copied.all()
    index, pictures, numbers = bench.test()
    assert len(pictures) == 2 and numbers.tolist() == index.tolist()


def test_images_of_another_size_are_refused(tmp_path):
    images = np.full((4, 9, 8), 200, np.uint8)
    np.savez(tmp_path / "few.npz", x_train=images, y_train=np.arange(4), x_test=images, y_test=np.arange(4))
    with pytest.raises(UsageError, match="images are 9x8, the network takes 1x8x8"):
        open_bench(CELL, str(tmp_path / "few.npz"), AS_STORED, Settings(), tmp_path / "out")
    assert not (tmp_path / "out").exists()
