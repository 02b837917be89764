"""What a person says about reading: refused where it makes no sense, remembered in a file, and the split it makes."""

from __future__ import annotations

import pytest
import torch

from robnet_fx.errors import UsageError
from robnet_fx.zoo.data import load
from robnet_fx.zoo.reading import AS_STORED, METADATA_KEY, Reading
from robnet_fx.zoo.split import stratified


@pytest.mark.parametrize(
    "wrong",
    [
        {"resize": (0, 4)},
        *({"white": white} for white in (0.0, -1.0, float("nan"), float("inf"))),
        *({"test_share": share} for share in (0.0, 1.0, -0.1, float("nan"))),
    ],
)
def test_what_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    (option,) = wrong
    with pytest.raises(UsageError, match=f"--{option.replace('_', '-')} takes"):
        Reading(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", [{"resize": (4, 4)}, {"white": 16.0}, {"test_share": 0.2}])
def test_a_set_with_a_name_is_what_it_is(option: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="digits is what it is"):
        load("digits", Reading(**option))  # type: ignore[arg-type]


def test_a_reading_is_remembered() -> None:
    reading = Reading((32, 48), 4095, 0.25, 7)
    assert AS_STORED.completed(reading.metadata()) == reading
    assert AS_STORED.completed({}) == AS_STORED
    assert AS_STORED.metadata() == Reading(seed=4).metadata() == {}
    assert Reading(seed=4).completed(reading.metadata()) == reading  # the split is the one that was trained on
    assert Reading((8, 8), seed=3).completed(Reading(white=9).metadata()) == Reading((8, 8), 9, None, 3)
    assert Reading(test_share=0.25, seed=7).completed(reading.metadata()) == reading
    for other in (Reading(test_share=0.3, seed=7), Reading(test_share=0.25, seed=0)):
        with pytest.raises(UsageError, match=r"judge it on training images\n  remedy  leave out --test-share"):
            other.completed(reading.metadata())
    for broken in ("", "[1]", '{"resize": 3}', '{"white": "grey"}', '{"test_share": 2}'):
        with pytest.raises(UsageError, match=METADATA_KEY):
            AS_STORED.completed({METADATA_KEY: broken})


def test_a_share_of_every_class_is_set_aside_by_seed_alone() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 10)
    torch.manual_seed(7)
    rest, chosen = stratified(labels, 0.2, seed=3)
    assert labels[chosen].bincount().tolist() == [10, 6, 2]
    assert torch.equal(torch.cat([rest, chosen]).sort().values, torch.arange(90))
    torch.manual_seed(8)
    state = torch.get_rng_state()
    assert torch.equal(stratified(labels, 0.2, seed=3)[1], chosen)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(stratified(labels, 0.2, seed=4)[1], chosen)
