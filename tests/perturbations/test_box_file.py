"""Boxes from files: read as they are written, or refused with the file's name and what is wrong."""

from __future__ import annotations

import json

import pytest
import torch

from robnet_fx.errors import UsageError
from robnet_fx.perturbations.box_file import read_box


def written(tmp_path, content):
    path = tmp_path / "box.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_box_is_the_one_in_the_file(tmp_path):
    pairs = [[0.7, 1.1], [-0.1, 0.2], [0, 0], [-0.05, 0]]
    field = read_box(written(tmp_path, {"order": 1, "multiplicative": pairs}))
    assert (field.order, field.additive) == (1, False)
    assert field.eps == pytest.approx(0.3)
    transform = field.build((1, 4, 4))
    ends = torch.stack([transform.center - transform.radius, transform.center + transform.radius], 1)
    torch.testing.assert_close(ends, torch.tensor(pairs, dtype=torch.float64))
    assert transform.box_at(0.0)[0].tolist() == [1, 0, 0, 0] and not transform.box_at(0.0)[1].any()


def test_an_additive_part_alone_and_ends_beyond_one(tmp_path):
    field = read_box(written(tmp_path, {"order": 0, "additive": [[-0.1, 0.4]]}))
    assert (field.eps, field.multiplicative) == (pytest.approx(0.4), False)
    field = read_box(written(tmp_path, {"order": 0, "multiplicative": [[0.5, 3]]}))
    assert field.eps == 1
    center, radius = field.build((1, 4, 4)).box_at(1.0)
    assert (center - radius).item() == pytest.approx(0.5) and (center + radius).item() == pytest.approx(3)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not a JSON file"),
        ([[0.9, 1.1]], "a JSON object, not list"),
        ({"multiplicative": [[0.9, 1.1]]}, '"order" of the field is missing'),
        ({"order": 0}, "neither"),
        ({"order": 0, "multiplicative": [[0.9, 1.1]], "eps": 40}, "unknown 'eps'"),
        ({"order": 0, "multiplicative": True}, "list of"),
        ({"order": 0, "multiplicative": []}, "list of"),
        ({"order": 0, "multiplicative": [[1.1, 0.9]]}, '"multiplicative" 0 is no pair'),
        ({"order": 0, "additive": [[0, "1"]]}, '"additive" 0 is no pair'),
        ({"order": 0, "additive": [[0]]}, '"additive" 0 is no pair'),
        ({"order": 0, "additive": [3]}, '"additive" 0 is no pair'),
        ('{"order": 0, "additive": [[0, Infinity]]}', '"additive" 0 is no pair'),
        ('{"order": 0, "additive": [[NaN, 0]]}', '"additive" 0 is no pair'),
        ({"order": -1, "multiplicative": [[0.9, 1.1]]}, "order"),
        ({"order": "one", "multiplicative": [[0.9, 1.1]]}, "order"),
        ({"order": 0, "multiplicative": [[1, 1]]}, "unperturbed image alone"),
    ],
)
def test_what_is_wrong_is_said_with_the_file(tmp_path, content, words):
    with pytest.raises(UsageError) as error:
        read_box(written(tmp_path, content))
    assert "box.json" in str(error.value).splitlines()[0] and words in str(error.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read .*none\.json: No such file"):
        read_box(tmp_path / "none.json")


def test_too_few_pairs_are_counted_once_the_images_are_known(tmp_path):
    field = read_box(written(tmp_path, {"order": 1, "multiplicative": [[0.9, 1.1]]}))
    with pytest.raises(UsageError, match="multiplicative box needs 4"):
        field.build((1, 4, 4))
