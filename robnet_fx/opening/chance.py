"""Exact tests of whether a classifier's answers have anything to do with the images, and of which of two is better.

Both hold for any number of samples and any imbalance of the classes, and say so where they have no power.
"""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction

from torch import Tensor

LEVEL = 1e-3
"""What happens by chance less often than this is not taken for chance."""

_MOMENTS = 64  # of the number of right answers to begin with: more matter only where one class is most of the samples


def by_guessing(predicted: Tensor, labels: Tensor) -> float:
    """At most how probable it is that as many answers or more are right if the same answers are dealt out at random.

    `predicted`, `labels [N]`, whole numbers. For M right answers of a random dealing,
    `P(M >= m) <= E[C(M, j)] / C(m, j)` for every j, and the binomial moments of M are exact:
    `E[C(M, j)] = r_j (N - j)! / N!`, with `r_j` the number of ways to choose j pairs of an image and an equal answer,
    no two of the same (rook numbers). A constant answer has probability 1, however frequent its class.
    """
    right = int((predicted == labels).sum())
    answers, wanted = Counter(predicted.tolist()), Counter(labels.tolist())
    most = min(right, _MOMENTS)
    while True:
        bound = _bound(right, answers, wanted, most)
        if bound < LEVEL or most == right:
            return bound
        most = min(right, 2 * most)


def _bound(right: int, answers: Counter[int], wanted: Counter[int], most: int) -> float:
    """The least of the bounds up to the moment `most`."""
    ways = [1]
    for name, count in wanted.items():
        given = answers[name]
        own = [math.comb(count, j) * math.perm(given, j) for j in range(min(count, given, most) + 1)]
        ways = [
            sum(ways[i] * own[j - i] for i in range(max(0, j - len(own) + 1), min(j, len(ways) - 1) + 1))
            for j in range(min(len(ways) + len(own) - 2, most) + 1)
        ]
    count = wanted.total()
    return float(min(Fraction(number, math.perm(count, j) * math.comb(right, j)) for j, number in enumerate(ways)))


def best_by_guessing(labels: Tensor) -> float:
    """The same for answers that are all right: where it is not small, no test of these labels can have power."""
    return by_guessing(labels, labels)


def by_luck(better: Tensor, worse: Tensor) -> float:
    """How probable it is that of two classifiers that are equally good one is right where the other is wrong as often
    as here, or more often; `bool [N]`, right answers of the same samples (the exact sign test)."""
    wins, losses = int((better & ~worse).sum()), int((worse & ~better).sum())
    count = wins + losses
    return float(Fraction(sum(math.comb(count, k) for k in range(wins, count + 1)), 2**count))
