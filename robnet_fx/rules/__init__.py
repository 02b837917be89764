"""Bound rules: one file an operation family, all three bounds beside each other, entered in one table."""

from robnet_fx.rules import (  # noqa: F401  (importing a family enters its rules)
    arithmetic,
    clamp,
    conv,
    einsum,
    exponential,
    extremes,
    gelu,
    hyperbolic,
    leaky,
    linear,
    logsumexp,
    maxpool,
    moves,
    norm,
    pad,
    periodic,
    pool,
    power,
    product,
    relu,
    resample,
    shape,
    sigmoid,
    silu,
    softmax,
    step,
    where,
    windows,
    within,
)
from robnet_fx.rules.affine import affine
from robnet_fx.rules.registry import Rule, family, register, rule_for, table
from robnet_fx.rules.relaxation import Band, Lines, elementwise

__all__ = ["Band", "Lines", "Rule", "affine", "elementwise", "family", "register", "rule_for", "table"]
