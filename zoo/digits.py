"""The standard digits classifier: trained without any robust loss, in seconds, the same from the same seed."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from robnet_fx.zoo.data import load
from robnet_fx.zoo.models import digits_net

EPOCHS, BATCH, LEARNING_RATE = 40, 64, 2e-3


def train_digits(seed: int = 0) -> nn.Sequential:
    """`digits_net` trained on the training part of digits, in eval mode: about 98 % of the test part is right."""
    digits = load("digits")
    images, labels = digits.x_train / 255, digits.y_train
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = digits_net()
        optimiser = torch.optim.Adam(net.parameters(), LEARNING_RATE)
        for _ in range(EPOCHS):
            for batch in torch.randperm(len(images)).split(BATCH):
                optimiser.zero_grad()
                F.cross_entropy(net(images[batch]), labels[batch]).backward()
                optimiser.step()
    return net.eval()
