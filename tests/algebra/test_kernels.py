"""Each kernel against its plain form: values, derivatives in every argument, other memory layouts, empty and zero."""

import pytest
import torch
from torch.autograd import gradcheck

from robnet_fx.algebra import kernels

B, N, S = 3, 4, (2, 5, 3)


def coefficients(n=N, b=B, s=S):
    coef = torch.randn(b, n, *s, dtype=torch.float64)
    return coef * (torch.rand_like(coef) > 0.3)  # some are exactly zero


def values(b=B, s=S):
    return torch.randn(b, *s, dtype=torch.float64)


def ends():
    """Intervals on either side of zero, about it, and of no width."""
    lower = torch.randn(B, *S, dtype=torch.float64)
    upper = lower + torch.rand_like(lower) * 3
    upper[0, 0], lower[1, 0], upper[1, 0] = lower[0, 0], 0.0, 1.0
    lower[2, 0], upper[2, 0], lower[2, 1, 0], upper[2, 1, 0] = -1.0, 0.0, 0.0, 0.0
    return lower, upper


CASES = {
    "reach": (kernels.reach, kernels.reach_plain, lambda: (coefficients(),)),
    "reach one": (kernels.reach, kernels.reach_plain, lambda: (coefficients(n=1),)),
    "scale": (kernels.scale, kernels.scale_plain, lambda: (coefficients(), values())),
    "contract": (kernels.contract, kernels.contract_plain, lambda: (coefficients(), values())),
    "contract one for all": (kernels.contract, kernels.contract_plain, lambda: (coefficients(), values(b=1))),
    "contract vectors": (kernels.contract, kernels.contract_plain, lambda: (coefficients(s=(7,)), values(s=(7,)))),
    "contract numbers": (kernels.contract, kernels.contract_plain, lambda: (coefficients(s=()), values(s=()))),
    "choose numbers": (
        kernels.choose,
        kernels.choose_plain,
        lambda: (coefficients(s=()), *(values(s=()) for _ in range(4))),
    ),
    "choose": (kernels.choose, kernels.choose_plain, lambda: (coefficients(), *(values() for _ in range(4)))),
    "choose, no lower offset": (
        lambda c, a, b, d: kernels.choose(c, a, None, b, d),
        lambda c, a, b, d: kernels.choose_plain(c, a, None, b, d),
        lambda: (coefficients(), values(), values(), values()),
    ),
    "chord": (kernels.chord, kernels.chord_plain, ends),
}


def channels_last(x):
    return x.movedim(-3, -1).contiguous().movedim(-1, -3) if x.dim() > 3 else x


def results(form, arguments, seed):
    made = form(*arguments)
    made = made if isinstance(made, tuple) else (made,)
    generator = torch.Generator().manual_seed(seed)
    rows = [torch.randn(m.shape, dtype=m.dtype, generator=generator) for m in made]
    total = sum((m * r).sum() for m, r in zip(made, rows, strict=True))
    return made, torch.autograd.grad(total, arguments)


@pytest.mark.parametrize("at_once", [1, 200, 2**16])
@pytest.mark.parametrize("arrange", [lambda x: x, channels_last], ids=["contiguous", "channels last"])
@pytest.mark.parametrize("name", CASES)
def test_a_kernel_is_its_plain_form(name, arrange, at_once, monkeypatch):
    monkeypatch.setattr(kernels, "_CACHE", at_once)
    kernel, plain, make = CASES[name]
    arguments = [arrange(x).requires_grad_(True) for x in make()]
    for got, expected in zip(results(kernel, arguments, 1), results(plain, arguments, 1), strict=True):
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)
        assert all(x.isfinite().all() for x in got)


@pytest.mark.parametrize("name", [name for name in CASES if name != "chord"])
def test_derivatives_by_differences(name):
    kernel, _, make = CASES[name]
    arguments = [torch.where(x < 0, x - 0.1, x + 0.1) for x in make()]  # away from the kinks
    assert gradcheck(kernel, [x.requires_grad_(True) for x in arguments])


@pytest.mark.parametrize("chosen", [(0,), (1,), (2,), (3,), (4,), (0, 3), (1, 4)])
def test_only_the_derivatives_asked_for(chosen):
    arguments = [x.requires_grad_(i in chosen) for i, x in enumerate((coefficients(), *(values() for _ in range(4))))]
    wanted = [arguments[i] for i in chosen]
    grads = []
    for form in (kernels.choose, kernels.choose_plain):
        coef, const = form(*arguments)
        grads.append(torch.autograd.grad(coef.square().sum() + const.square().sum(), wanted, allow_unused=True))
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b)


def test_nothing_to_add_up():
    empty = torch.zeros(2, 0, 3)
    assert kernels.reach(empty).tolist() == [[0, 0, 0]] * 2
    assert kernels.contract(empty, torch.ones(2, 3)).shape == (2, 0)


def test_nan_is_not_hidden():
    nan = torch.full((1, 1, 1), torch.nan)
    one = torch.ones(1, 1)
    assert kernels.reach(nan).isnan().all()
    assert kernels.scale(torch.ones(1, 1, 1), nan[0]).isnan().all()
    for ends in ((nan[0], one), (one, nan[0]), (-one, nan[0]), (nan[0], -one), (nan[0], nan[0])):
        assert all(x.isnan().all() for form in (kernels.chord, kernels.chord_plain) for x in form(*ends))
    coef, const = kernels.choose(nan, one, one, one, one)
    assert coef.isnan().all()
    assert const.isnan().all()


@pytest.mark.parametrize("form", [kernels.chord, kernels.chord_plain])
def test_a_chord_survives_the_overflow_of_its_width(form):
    """The upper line holds at both ends, also where u - l is not a number, or the slope rounds to 0 or 1."""
    lower = torch.tensor([[-3e38, -1e38, -1e-40, -1.0, 0.0, 0.0, -1e30, -1e-20]])
    upper = torch.tensor([[3e38, 3e38, 1e-40, 0.0, 3e38, 0.0, 1e-20, 1e30]])
    slope, offset = form(lower, upper)
    for x in (lower, upper):
        assert (slope.double() * x + offset >= x.double().clamp(min=0) * (1 - 1e-5)).all()
    assert slope.tolist()[0][3:5] == [0, 1]
    assert offset.tolist()[0][3:6] == [0, 0, 0]
    assert offset[0, 6:].tolist() == [upper[0, 6], -lower[0, 7]]


def test_tracing_sees_the_plain_forms():
    """No size is built into what is traced, and a compiled graph has no hand-written step in it."""
    from torch.fx.experimental.proxy_tensor import make_fx

    with kernels.plain():
        traced = make_fx(kernels.reach, tracing_mode="symbolic")(torch.rand(2, 3, 4))
    assert torch.equal(traced(torch.ones(5, 7, 4)), torch.full((5, 4), 7.0))
    exported = torch.export.export(
        _Reach(), (torch.rand(2, 3, 4),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC},)
    )
    assert torch.equal(exported.module()(torch.ones(5, 7, 4)), torch.full((5, 4), 7.0))


class _Reach(torch.nn.Module):
    def forward(self, x):
        return kernels.reach(x)
