import pytest
import torch

from robnet_fx.errors import UsageError
from robnet_fx.images.pixels import batches, check, subset, to_float

GOOD = torch.zeros(3, 1, 4, 4, dtype=torch.uint8)
LABELS = torch.tensor([0, 1, 2])


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (GOOD, torch.tensor([0, 1])),
        (GOOD, torch.tensor([0, 1, 3])),
        (GOOD, torch.tensor([0, 1, -1])),
        (GOOD, torch.tensor([0.0, 1.0, 2.0])),
        (GOOD[:0], LABELS[:0]),
        (GOOD.int(), LABELS),
        (GOOD.float() + 2, LABELS),
        (GOOD.float() * torch.nan, LABELS),
    ],
)
def test_unusable_sets_are_refused(images, labels):
    with pytest.raises(UsageError):
        check(images, labels, 3)


def test_usable_sets_pass():
    check(GOOD, LABELS, 3)
    check(GOOD.double() + 1, LABELS.int(), 3)


def test_uint8_is_scaled_and_float_is_not():
    like = torch.zeros((), dtype=torch.float64)
    assert to_float(torch.tensor([51], dtype=torch.uint8), like).item() == pytest.approx(0.2, abs=1e-17)
    assert to_float(torch.tensor([0.5]), like).dtype == torch.float64


def test_batches_cover_everything_once():
    assert [i for part in batches(7, 3) for i in range(7)[part]] == list(range(7))
    with pytest.raises(UsageError):
        list(batches(3, 0))


def test_a_limit_is_the_same_choice_every_time():
    assert subset(5, None).tolist() == subset(5, 9).tolist() == [0, 1, 2, 3, 4]
    chosen = subset(1000, 50)
    assert torch.equal(chosen, subset(1000, 50))
    assert len(chosen.unique()) == 50
    assert chosen.tolist() != list(range(50))  # a set sorted by class would leave one class
    with pytest.raises(UsageError):
        subset(5, 0)
