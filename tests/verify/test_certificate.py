import json
import re

import pytest
import torch

from robnet_fx.errors import UsageError
from robnet_fx.machine.files import sha256_of_file, sha256_of_tensors
from robnet_fx.verify import Limits, certify, classify, verdicts
from robnet_fx.verify.search import ROUND
from tests.small import bounded, digits, moody_net

X, Y = digits()
X, Y = X[1500:1560], Y[1500:1560]
ONE = Limits(boxes=1)


@pytest.fixture
def net():
    return bounded(eps=0.3, fit=200)


def test_certified_means_correct_and_every_margin_below_zero(net):
    found = verdicts(net, X, Y, batch_size=17)
    logits, margins = net.logits(X / 255), net.margins(X / 255, Y)
    assert torch.equal(found.predicted, logits.argmax(1))
    assert torch.equal(found.correct, logits.argmax(1) == Y)
    assert torch.equal(found.certified, found.correct & (margins < 0).all(1))
    assert 0 < found.certified.sum() < found.correct.sum() < len(Y)
    others = margins.scatter(1, Y.unsqueeze(1), -torch.inf)
    torch.testing.assert_close(found.margin[found.correct], others.amax(1)[found.correct].detach())
    assert found.margin[~found.correct].isnan().all()


def test_a_verdict_does_not_hang_on_the_batch(net):
    whole = certify(net, X, Y, limits=ONE)
    for part in (slice(0, 1), slice(7, 11), slice(20, 60)):
        assert torch.equal(certify(net, X[part], Y[part], limits=ONE).certified, whole.certified[part])


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_bounds_that_are_not_numbers_prove_nothing(net, monkeypatch, value):
    original = net.margins

    def poisoned(images, labels):
        margins = original(images, labels) - 1000
        rival = (labels[0] + 1) % 10
        margins[0, rival] = value
        return margins

    monkeypatch.setattr(net, "margins", poisoned)
    found = verdicts(net, X, Y, batch_size=len(X))
    first, *rest = found.correct.nonzero().squeeze(1).tolist()
    assert not found.certified[first]
    assert found.certified[rest].all()


def test_ties_are_neither_correct_nor_certified():
    net = bounded(eps=0.3)
    with torch.no_grad():
        net.model[-1].weight.zero_()
        net.model[-1].bias.zero_()
    result = certify(net, X, Y)
    assert (result.clean_accuracy, result.certified_accuracy) == (0, 0)


def test_nan_weights_certify_nothing(net):
    with torch.no_grad():
        net.model[0].weight[0] = torch.nan
    assert certify(net, X, Y).clean_accuracy == 0


def test_the_callers_model_keeps_its_dtype_identity_and_box(net):
    parameters, state = list(net.model.parameters()), net.model.state_dict()
    box = net.center.clone(), net.radius.clone()
    result = certify(net, X, Y)
    assert result.margin.dtype == torch.float64
    assert all(a is b and a.dtype == torch.float32 for a, b in zip(net.model.parameters(), parameters, strict=True))
    assert all(torch.equal(v, net.model.state_dict()[k]) for k, v in state.items())
    assert torch.equal(box[0], net.center)
    assert torch.equal(box[1], net.radius)
    assert net.margins(X[:2] / 255, Y[:2]).dtype == torch.float32


def test_float64_agrees_with_float32_up_to_rounding():
    for net in (bounded(eps=0.3, fit=200), bounded(moody_net, eps=0.1, fit=200)):
        exact, rough = (certify(net, X, Y, limits=ONE, dtype=dtype) for dtype in (torch.float64, None))
        assert exact.correct.any()
        torch.testing.assert_close(exact.margin, rough.margin, rtol=1e-3, atol=1e-3, equal_nan=True)


def test_the_box_is_exact_and_follows_set_eps(net):
    net.set_eps(0.1)
    document = certify(net, X, Y, limits=ONE).document()
    assert document["eps"] == 0.1
    assert document["box"]["radius"] == [0.1, 0.1 / 15, 0.1 / 15, 0.1 / 15]  # not 0.1 rounded to float32
    assert document["box"]["center"] == [1, 0, 0, 0]
    assert document["certified_accuracy"] > certify(bounded(eps=0.3, fit=200), X, Y, limits=ONE).certified_accuracy


def test_the_document_says_what_was_proved_about_what(net, tmp_path):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"some bytes")
    result = certify(net, X, Y, limits=Limits(boxes=8), model_file=file)
    path = tmp_path / "certificate.json"
    result.save(path)
    document = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert document == json.loads(result.to_json())
    assert document["method"] == "rsip-ssip"
    assert document["clip"] == "relu"
    assert document["dtype"] == "float64"
    assert document["perturbation"]["kind"] == "BiasField"
    assert document["perturbation"]["order"] == 1
    assert document["model_sha256"] == {
        "weights": sha256_of_tensors(net.model.state_dict()),
        "file": sha256_of_file(file),
    }
    assert document["data_sha256"] == sha256_of_tensors({"images": X, "labels": Y})
    assert document["versions"]["torch"] == torch.__version__.partition("+")[0]
    samples = document["samples"]
    assert [s["index"] for s in samples] == list(range(len(Y)))
    assert sum(s["certified"] for s in samples) / len(Y) == document["certified_accuracy"]
    assert sum(s["correct"] for s in samples) / len(Y) == document["clean_accuracy"]
    assert all((s["margin"] is None) == (not s["correct"]) for s in samples)
    assert all(s["certified"] == (s["correct"] and s["margin"] < 0) for s in samples)
    for s in samples:
        if s["correct"]:
            assert s["certified"] == (s["answer"] == "certified") == (s["proved"] == 1)
            assert ("coefficients" in s) == (s["answer"] == "falsified") == (s["how"] in ("attack", "corner"))
            assert s["answer"] != "unknown" or (s["how"] == "boxes" and 8 <= s["boxes"] < 8 + ROUND)
    accuracies = [document[f"{name}_accuracy"] for name in ("one_box", "certified", "attacked", "clean")]
    assert accuracies == sorted(accuracies) and 0 < accuracies[0] < accuracies[1]
    assert document["limits"] == {"seconds": None, "boxes": 8}


def test_certifying_twice_gives_the_same_text(net):
    texts = [re.sub(r'"seconds": [0-9.]+', "", certify(net, X, Y, limits=ONE).to_json(leaves=True)) for _ in range(2)]
    assert texts[0] == texts[1]


def test_float_images_mean_the_same_as_uint8(net):
    a, b = (certify(net, images, Y, limits=ONE) for images in (X, X.double() / 255))
    assert torch.equal(a.certified, b.certified)
    assert torch.equal(a.margin.nan_to_num(), b.margin.nan_to_num())


def test_bad_input_is_refused(net):
    with pytest.raises(UsageError):
        certify(net, X, Y[:-1])
    with pytest.raises(UsageError):
        certify(net, X, Y + 1)
    with pytest.raises(UsageError, match="dtype"):
        certify(net, X, Y, dtype=torch.int32)


def test_classify_matches_argmax(net):
    predicted, right = classify(net, X, Y, batch_size=7)
    assert torch.equal(predicted, net.logits(X / 255).argmax(1))
    assert torch.equal(right, predicted == Y)


def test_precision_settings_are_put_back(net):
    before = torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision
    inside = []
    original = net.margins
    net.margins = lambda *args: (inside.append(torch.backends.cudnn.conv.fp32_precision), original(*args))[1]
    try:
        verdicts(net, X, Y)
    finally:
        del net.margins
    assert set(inside) == {"ieee"}
    assert before == (torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision)


def test_the_box_in_the_document_is_the_one_that_was_bounded(net):
    net.double()
    with torch.no_grad():
        net.transform.radius.mul_(0.5)  # whoever moves it: nothing else says where it is
    document = certify(net, X[:2], Y[:2], dtype=None).document()
    assert document["box"]["radius"] == net.radius.tolist()
