import copy
import os
import signal
from dataclasses import replace

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from robnet_fx.errors import Interrupted, RobnetError, UsageError
from robnet_fx.machine.progress import SILENT
from robnet_fx.train import Phase, Recipe, train
from robnet_fx.train.checkpoint import load
from robnet_fx.train.objectives import SmallBoxes
from robnet_fx.verify import Limits, certify
from tests.mixture import Mixture
from tests.small import bounded, digits, moody_net

X, Y = digits()
TRAIN, VALIDATION = (X[:200], Y[:200]), (X[200:260], Y[200:260])
RECIPE = Recipe(
    (Phase("standard", 1, 5e-3, 0, 0, robust=False), Phase("ramp", 2, 2e-3, 0, 1), Phase("full", 1, 1e-3)),
    batch_size=32,
    seed=3,
)
STEPS = 7  # batches of 28 or 29


class Stop:
    """A progress that presses Ctrl-C when `after` steps are done."""

    def __init__(self, after, how):
        self.left, self.how = after + 1, how  # the first call reports where the run stands

    def task(self, name, total):
        self.context = SILENT.task(name, total)
        return self

    def __enter__(self):
        self.context.__enter__()
        return self

    def __exit__(self, *args):
        return self.context.__exit__(*args)

    def advance(self, steps=1, **figures):
        self.left -= 1
        if self.left == 0:
            self.how()


def press():
    os.kill(os.getpid(), signal.SIGINT)


def weights(net):
    return {k: v.clone() for k, v in net.model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def uninterrupted():
    net = bounded(moody_net)
    history = train(net, *TRAIN, RECIPE, validation=VALIDATION)
    return weights(net), history


def test_training_repeats_itself(uninterrupted):
    net = bounded(moody_net)
    torch.manual_seed(99)  # the caller's random numbers are neither used nor changed
    torch.rand(5)
    state = torch.get_rng_state()
    history = train(net, *TRAIN, RECIPE, validation=VALIDATION)
    assert torch.equal(state, torch.get_rng_state())
    assert same(weights(net), uninterrupted[0])
    assert history == uninterrupted[1]


@pytest.mark.parametrize("done", [0, 3, STEPS, STEPS + 1, 2 * STEPS + 5, 3 * STEPS, 4 * STEPS - 1, 4 * STEPS])
def test_resume_is_bit_for_bit(tmp_path, uninterrupted, done):
    path = tmp_path / "checkpoint.pt"
    net = bounded(moody_net)
    with pytest.raises(Interrupted) as stopped:
        train(net, *TRAIN, RECIPE, validation=VALIDATION, checkpoint=path, progress=Stop(done, press))
    assert stopped.value.checkpoint == path
    assert load(path)["epoch"] * STEPS + load(path)["step"] == done
    net = bounded(moody_net, seed=7)  # another start: everything comes from the checkpoint
    torch.manual_seed(5)
    history = train(net, *TRAIN, RECIPE, validation=VALIDATION, checkpoint=path, resume=True)
    assert same(weights(net), uninterrupted[0])
    assert history == uninterrupted[1]


@pytest.mark.parametrize("place", ["forward", "logits", "margins_in_parts"])
def test_ctrl_c_inside_a_step_loses_only_that_step(tmp_path, monkeypatch, uninterrupted, place):
    """Random numbers are drawn and statistics overwritten by then: the step must be undone to the last bit."""
    path = tmp_path / "checkpoint.pt"
    net = bounded(moody_net)
    target = net.model if place == "forward" else net
    name = "forward" if place == "forward" else place
    original, calls = getattr(target, name), []

    def stop(*args, **options):
        result = original(*args, **options)
        calls.append(args)
        if len(calls) == 9:
            press()
        return result

    monkeypatch.setattr(target, name, stop)
    with pytest.raises(Interrupted):
        train(net, *TRAIN, RECIPE, validation=VALIDATION, checkpoint=path)
    monkeypatch.undo()
    history = train(bounded(moody_net, seed=1), *TRAIN, RECIPE, validation=VALIDATION, checkpoint=path, resume=True)
    assert history == uninterrupted[1]
    resumed = bounded(moody_net, seed=1)
    train(resumed, *TRAIN, RECIPE, validation=VALIDATION, checkpoint=path, resume=True)
    assert same(weights(resumed), uninterrupted[0])


def test_ctrl_c_during_the_update_waits_for_it(tmp_path, monkeypatch, uninterrupted):
    path = tmp_path / "checkpoint.pt"
    original, calls = torch.optim.Adam.step, []

    def stop(self, *args, **options):
        calls.append(1)
        if len(calls) == 5:
            press()
        return original(self, *args, **options)

    monkeypatch.setattr(torch.optim.Adam, "step", stop)
    with pytest.raises(Interrupted):
        train(bounded(moody_net), *TRAIN, RECIPE, validation=VALIDATION, checkpoint=path)
    assert load(path)["step"] == 5
    net = bounded(moody_net, seed=1)
    train(net, *TRAIN, RECIPE, validation=VALIDATION, checkpoint=path, resume=True)
    assert same(weights(net), uninterrupted[0])


def test_ctrl_c_without_a_checkpoint_says_so():
    with pytest.raises(Interrupted) as stopped:
        train(bounded(), *TRAIN, RECIPE, progress=Stop(2, press))
    assert stopped.value.checkpoint is None


def test_a_finished_run_resumes_to_its_result(tmp_path, uninterrupted):
    path = tmp_path / "checkpoint.pt"
    train(bounded(moody_net), *TRAIN, RECIPE, validation=VALIDATION, checkpoint=path)
    net = bounded(moody_net, seed=4)
    assert train(net, *TRAIN, RECIPE, validation=VALIDATION, checkpoint=path, resume=True) == uninterrupted[1]
    assert same(weights(net), uninterrupted[0])


def test_resume_refuses_another_run(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    short = Recipe((Phase("full", 1, 1e-3),), batch_size=100)
    train(bounded(), *TRAIN, short, checkpoint=path)
    other = Recipe((Phase("full", 1, 1e-3),), batch_size=100, alpha=2.0)
    with pytest.raises(UsageError, match=r"recipe\.alpha"):
        train(bounded(), *TRAIN, other, checkpoint=path, resume=True)
    with pytest.raises(UsageError, match=r"recipe\.precision"):
        train(bounded(), *TRAIN, replace(short, precision="bf16"), checkpoint=path, resume=True)
    with pytest.raises(UsageError, match=r"objective +Equation6\(\) -> Mixture\(share=0.5, steps=2\)"):
        train(bounded(), *TRAIN, short, checkpoint=path, resume=True, objective=Mixture())
    with pytest.raises(UsageError, match="perturbation"):
        train(bounded(eps=0.2), *TRAIN, short, checkpoint=path, resume=True)
    with monkeypatch.context() as patch, pytest.raises(UsageError, match="normalisation"):
        patch.setattr(bounded(), "problem", replace(bounded().problem, mean=0.5))
        train(bounded(), *TRAIN, short, checkpoint=path, resume=True)
    with pytest.raises(UsageError, match="data"):
        train(bounded(), X[:199], Y[:199], short, checkpoint=path, resume=True)
    with pytest.raises(UsageError, match="model"):
        train(bounded(moody_net), *TRAIN, short, checkpoint=path, resume=True)
    with pytest.raises(UsageError, match="no checkpoint"):
        train(bounded(), *TRAIN, short, checkpoint=tmp_path / "none.pt", resume=True)
    train(bounded(), *TRAIN, replace(short, micro_batch=7, micro_rows=2), checkpoint=path, resume=True)  # less memory


def test_a_compiled_net_learns_the_same_and_its_validation_is_not_compiled():
    recipe = Recipe((Phase("full", 2, 1e-3),), batch_size=64, micro_rows=4)
    counter = CompileCounterWithBackend("aot_eager")
    plain, net = bounded(eps=0.6, fit=200), copy.deepcopy(bounded(eps=0.6, fit=200))
    net.compile(backend=counter)
    fused = train(net, *TRAIN, recipe, validation=VALIDATION)
    assert counter.frame_count == 2
    eager = train(plain, *TRAIN, recipe, validation=VALIDATION)
    for a, b in zip(fused.epochs, eager.epochs, strict=True):
        assert a["robust"] == pytest.approx(b["robust"], rel=1e-3)
        assert a["validation_certified"] == pytest.approx(b["validation_certified"], abs=0.05)
    for name, value in weights(net).items():
        torch.testing.assert_close(value, weights(plain)[name], rtol=1e-2, atol=1e-4)


def test_the_weights_kept_are_the_best_on_validation_at_the_full_eps(uninterrupted):
    _, history = uninterrupted
    assert history.selected is not None
    eligible = [(e["validation_certified"], e["validation_clean"], i) for i, e in enumerate(history.epochs) if i >= 2]
    assert history.selected == max(eligible)[2]
    assert [e["phase"] for e in history.epochs] == ["standard", "ramp", "ramp", "full"]
    assert "validation_certified" not in history.epochs[0]
    assert [e["eps"] for e in history.epochs] == [0, pytest.approx(0.1 * 6 / 13), 0.1, 0.1]


def test_epochs_are_compared_by_as_many_parts_as_are_trained_on():
    """What small boxes are good for shows in verdicts that split, which no clock may stop."""
    recipe = Recipe((Phase("full", 2, 1e-3),), batch_size=100)
    net, one_box = bounded(eps=0.2, fit=60), {}
    history = train(net, *TRAIN, recipe, objective=SmallBoxes(cuts=4), validation=VALIDATION)
    for boxes in (1, 16):
        found = certify(net, *VALIDATION, limits=Limits(boxes=boxes), dtype=torch.float32)
        one_box[boxes] = found.certified_accuracy
    selected = history.epochs[history.selected]
    assert selected["validation_certified"] == pytest.approx(one_box[16], abs=0.011)  # rounding may turn one image
    assert selected["validation_certified"] > one_box[1]
    assert selected["validation_clean"] == pytest.approx(found.clean_accuracy)


def test_selection_goes_back_to_an_earlier_epoch():
    """A last epoch that ruins the network is not kept."""
    recipe = Recipe((Phase("full", 1, 1e-3), Phase("ruin", 1, 3.0)), batch_size=50)
    net = bounded(fit=200)
    history = train(net, *TRAIN, recipe, validation=VALIDATION)
    assert history.selected == 0
    assert (net.logits(VALIDATION[0] / 255).argmax(1) == VALIDATION[1]).float().mean() == pytest.approx(
        history.epochs[0]["validation_clean"], abs=1e-6
    )


def test_the_box_ends_at_the_target_and_modes_are_put_back():
    net = bounded(moody_net)
    net.model.train()
    train(net, *TRAIN, Recipe((Phase("standard", 1, 1e-3, 0, 0, robust=False),)))
    assert net.eps == net.perturbation.eps == 0.1
    assert net.model.training
    net.model.eval()
    train(net, *TRAIN, Recipe((Phase("full", 1, 1e-3),)))
    assert not net.model.training


def test_training_changes_the_users_own_parameters():
    net = bounded()
    parameters = list(net.model.parameters())
    before = [p.detach().clone() for p in parameters]
    train(net, *TRAIN, Recipe((Phase("full", 1, 1e-3),)), validation=VALIDATION)
    assert all(a is b for a, b in zip(net.model.parameters(), parameters, strict=True))
    assert all(not torch.equal(a, b) for a, b in zip(before, parameters, strict=True))


def test_any_objective_trains_and_resumes(tmp_path):
    """Its own figures reach history, checkpoint and progress; the trainer knows none by name."""

    class Seen(Stop):
        def advance(self, steps=1, **figures):
            shown.append(figures)
            super().advance(steps, **figures)

    shown = []
    common = {"objective": Mixture(), "validation": VALIDATION}
    net = bounded(eps=0.3)
    history = train(net, *TRAIN, RECIPE, progress=Seen(-1, press), **common)
    final = weights(net)
    names = ["standard", "robust", "adversarial", "surviving", "clean", "certified"]
    assert [list(e)[3:9] for e in history.epochs] == [names] * 4
    assert history.epochs[0]["adversarial"] == history.epochs[0]["surviving"] == 0  # a standard phase
    assert 0 < history.epochs[-1]["certified"] <= history.epochs[-1]["surviving"] <= history.epochs[-1]["clean"]
    assert all(list(figures) == ["epoch", "loss", "eps", "clean", "certified"] for figures in shown[1:29])
    path = tmp_path / "checkpoint.pt"
    with pytest.raises(Interrupted):
        train(bounded(eps=0.3), *TRAIN, RECIPE, checkpoint=path, progress=Stop(STEPS + 3, press), **common)
    assert list(load(path)["sums"]) == names
    net = bounded(eps=0.3, seed=4)
    assert train(net, *TRAIN, RECIPE, checkpoint=path, resume=True, **common) == history
    assert same(weights(net), final)


def test_a_run_goes_on_with_its_threads_and_leaves_the_callers(tmp_path, monkeypatch):
    """Sums are rounded by the number of threads; OMP_NUM_THREADS is the user's word."""
    path, short = tmp_path / "checkpoint.pt", Recipe((Phase("full", 1, 1e-3),), batch_size=100)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    used, before = [], torch.get_num_threads()
    original = torch.optim.Adam.step
    monkeypatch.setattr(
        torch.optim.Adam, "step", lambda *args, **options: (used.append(torch.get_num_threads()), original(*args))[1]
    )
    try:
        for saved, variable, expected in ((2, None, 2), (2, "1", 1), (5, None, 3)):
            torch.set_num_threads(saved)
            with pytest.raises(Interrupted):
                train(bounded(), *TRAIN, short, checkpoint=path, progress=Stop(1, press))
            assert load(path)["threads"] == saved
            torch.set_num_threads(1)
            monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
            if variable:
                monkeypatch.setenv("OMP_NUM_THREADS", variable)
            used.clear()
            train(bounded(), *TRAIN, short, checkpoint=path, resume=True)
            assert (used, torch.get_num_threads()) == ([expected], 1)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("micro_batch", [1, 10, 31])
def test_micro_batches_add_up_to_the_batch(micro_batch, monkeypatch):
    """Every part's gradient counts, with the whole batch as the divisor."""
    gradients, histories = [], []
    original = torch.optim.Adam.step

    def watch(self, *args, **options):
        gradients.append([p.grad.clone() for p in self.param_groups[0]["params"]])
        return original(self, *args, **options)

    bounded(eps=0.6, fit=200)  # its own training is not watched
    monkeypatch.setattr(torch.optim.Adam, "step", watch)
    for size in (None, micro_batch):
        recipe = Recipe((Phase("full", 1, 1e-3),), batch_size=32, micro_batch=size)
        histories.append(train(bounded(eps=0.6, fit=200), X[:32], Y[:32], recipe).epochs[0])
    assert histories[0]["robust"] > 0
    for name in ("standard", "robust", "clean", "certified"):
        assert histories[0][name] == pytest.approx(histories[1][name], rel=1e-4)
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_frozen_parameters_stay():
    net = bounded()
    net.model[0].requires_grad_(False)
    before = net.model[0].weight.clone()
    train(net, *TRAIN, Recipe((Phase("full", 1, 1e-3),)))
    assert torch.equal(before, net.model[0].weight)
    net.model.requires_grad_(False)
    with pytest.raises(UsageError, match="no parameters"):
        train(net, *TRAIN, RECIPE)


def test_divergence_stops_and_keeps_the_last_good_state(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    net = bounded(moody_net)
    original = net.margins_in_parts

    def poison(*args, **options):
        tenth = net.eps > 0.1 * 9.5 / 13  # of the fourteen steps of the ramp
        return (part * (torch.nan if tenth else 1) for part in original(*args, **options))

    monkeypatch.setattr(net, "margins_in_parts", poison)
    with pytest.raises(RobnetError, match=r"diverged in epoch 3, step 4[\s\S]*learning rate[\s\S]*checkpoint") as error:
        train(net, *TRAIN, RECIPE, checkpoint=path)
    assert not isinstance(error.value, Interrupted)
    assert load(path)["epoch"] == 2
    assert all(v.isfinite().all() for v in net.model.state_dict().values())


def test_an_infinite_gradient_is_divergence_too():
    net = bounded()
    hook = next(net.model.parameters()).register_hook(lambda gradient: gradient * torch.inf)
    with pytest.raises(RobnetError, match="gradient is not finite"):
        train(net, *TRAIN, RECIPE)
    hook.remove()


def test_a_full_disk_at_a_checkpoint_is_an_error_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "checkpoint.pt"
    train(bounded(), *TRAIN, Recipe((Phase("full", 1, 1e-3),)), checkpoint=path)
    content = path.read_bytes()

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RobnetError, match="No space left"):
        train(bounded(), *TRAIN, Recipe((Phase("full", 1, 2e-3),)), checkpoint=path)
    assert path.read_bytes() == content
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.pt"]


def test_robust_training_helps():
    """On the real bounds: a short run at eps 0.6 certifies many more digits than standard training does."""
    net = bounded(eps=0.6, fit=200)
    share = lambda: (net.margins(X[1500:] / 255, Y[1500:]) < 0).all(1).float().mean().item()  # noqa: E731
    before = share()
    recipe = Recipe.short(6, lr=2e-3, batch_size=64)
    train(net, X[:800], Y[:800], recipe, validation=(X[1300:1400], Y[1300:1400]))
    assert share() > before + 0.2


def test_augmentation_moves_and_mirrors_only():
    from robnet_fx.train.augment import augment

    images = torch.zeros(64, 2, 9, 9)
    images[:, :, 4, 4] = 1
    moved = augment(images)
    assert moved.shape == images.shape
    assert (moved.sum((2, 3)) == 1).all()  # a dot in the middle never leaves a frame of four
    assert len(moved.flatten(1).argmax(1).unique()) > 20
    assert torch.equal(moved[:, 0], moved[:, 1])
    with pytest.raises(UsageError):
        augment(images[0])
