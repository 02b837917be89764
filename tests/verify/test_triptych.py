"""The images beside a certificate: what is survived and what turns them is so, in float64."""

from __future__ import annotations

import pytest
import torch

from robnet_fx import BiasField, Limits, bound, certify
from robnet_fx.verify.triptych import chosen, triptychs
from tests.small import bounded, digits


@pytest.fixture(scope="module")
def judged():
    images, labels = (each[:40] for each in digits())
    net = bound(bounded(fit=200).model, BiasField(1, 0.7), example=images[:2] / 255)
    return net, images, certify(net, images, labels, limits=Limits(boxes=6)).document()


def test_the_rule_takes_the_extreme_ones():
    samples = [
        {"answer": "certified", "margin": -3.0},
        {"answer": "falsified", "margin": 0.1},
        {"answer": "certified", "margin": -0.5},
        {"margin": None},
        {"answer": "unknown", "margin": 2.0, "proved": 0.5},
        {"answer": "falsified", "margin": 2.0},
        {"answer": "certified", "margin": -1.0},
        {"answer": "unknown", "margin": None, "proved": 0.25},
        {"answer": "falsified", "margin": 1.0},
    ]
    assert chosen(samples) == [5, 8, 2, 6, 7, 4]
    assert chosen([{"margin": None}]) == []


def test_what_is_shown_is_so(judged):
    net, images, record = judged
    before = net.center.clone(), net.radius.clone(), net.eps
    found = triptychs(net, images, record)
    assert {each.sample["answer"] for each in found} >= {"falsified", "certified"}
    center, radius = (torch.tensor(record["box"][end]) for end in ("center", "radius"))
    for each in found:
        label, answer = each.sample["label"], each.sample["answer"]
        assert each.original.predicted == label and each.original.margin < 0
        assert each.survived.predicted == label and each.survived.margin < 0
        assert ((each.survived.coefficients - center).abs() <= radius + 1e-6).all()
        assert (each.falsifying is not None) == (answer == "falsified")
        if answer == "falsified":
            assert each.falsifying.predicted != label
            assert each.falsifying.margin == pytest.approx(each.sample["margin"])
            assert each.falsifying.coefficients.tolist() == each.sample["coefficients"]
            way = center + each.along * (each.falsifying.coefficients - center)
            torch.testing.assert_close(each.survived.coefficients, way.double(), rtol=0, atol=1e-6)
        else:
            assert each.along is None
        if answer == "certified":
            assert each.survived.margin <= each.sample["margin"]
    assert torch.equal(net.center, before[0]) and torch.equal(net.radius, before[1]) and net.eps == before[2]


def test_the_maps_are_the_field_less_the_identity(judged):
    net, images, record = judged
    each = triptychs(net, images, record)[0]
    scale = each.falsifying.maps["multiplicative"]
    expected = (each.original.image.double() * (1 + scale)).clamp(0, 1)
    torch.testing.assert_close(each.falsifying.image, expected)
    assert each.original.maps == {}
