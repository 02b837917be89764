"""Near copies among images: planted ones are found, at the distance that they have."""

import pytest
import torch

from robnet_fx.errors import UsageError
from robnet_fx.images import copies
from robnet_fx.images.copies import distances


@pytest.fixture
def images():
    return torch.randint(0, 256, (40, 1, 12, 12), dtype=torch.uint8)


def test_planted_copies_are_found_at_their_distance(images, monkeypatch):
    monkeypatch.setattr(copies, "_AT_ONCE", 7)  # several chunks of both sets, the last ones short
    test = torch.randint(0, 256, (10, 1, 12, 12), dtype=torch.uint8)
    test[2] = images[39]
    test[5] = (images[0].int() + torch.where(images[0] < 128, 7, -7)).to(torch.uint8)
    test[9] = (images[20].int() + torch.where(images[20] < 128, 9, -9)).to(torch.uint8)
    found = distances(test, images)
    assert found[[2, 5, 9]].tolist() == [0, 7, 9]
    each = (test.double()[:, None] - images.double()).square().mean((2, 3, 4)).sqrt().amin(1)
    assert torch.equal(found, each)
    assert (found < 8).nonzero().flatten().tolist() == [2, 5]


def test_floats_count_in_grey_levels_too(images):
    assert torch.allclose(distances(images[:5] / 255, images[5:] / 255), distances(images[:5], images[5:]))
    assert float(distances(images[:5] / 255, images / 255).max()) < 1e-3


def test_images_of_another_size_are_refused(images):
    with pytest.raises(UsageError, match="cannot be compared"):
        distances(images, images[..., :6])
    with pytest.raises(UsageError, match="cannot be compared"):
        distances(images, images[:0])
