"""The networks of `networks.py` as a user of PyTorch writes them, and a training step of each."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.nn import functional

# As the package's models have it: `l2 * sum(w^2) / 2`, the gradient `l2 * w`.
_DECAY = {"mlp": 1e-6, "lenet5": 0.0, "resnet20": 1e-4, "resnet18": 1e-4}


class _Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut.

    Args:
        inputs: channels.
        outputs: channels.
        stride: of the first.
        shortcut: of the input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, shortcut: nn.Module) -> None:
        super().__init__()
        self.shortcut = shortcut
        self.branch = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`relu(shortcut(x) + F(x))`."""
        return functional.relu(self.shortcut(x) + self.branch(x), inplace=True)


class _EverySecond(nn.Module):
    """Every second pixel, and zero channels on both sides."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[batch, n, h, w]` to `[batch, 2 n, h / 2, w / 2]`."""
        missing = x.shape[1] // 2
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, missing, missing))


def _start(outputs: int, window: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(3, outputs, window, stride, padding=window // 2, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def _projection(inputs: int, outputs: int, stride: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


def _resnet20() -> nn.Module:
    layers, inputs = _start(16, 3, 1), 16
    for outputs in (16, 32, 64):
        for i in range(3):
            halves = i == 0 and outputs > 16
            shortcut = _EverySecond() if halves else nn.Identity()
            layers.append(_Block(inputs, outputs, 2 if halves else 1, shortcut))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def _resnet18() -> nn.Module:
    layers, inputs = [*_start(64, 7, 2), nn.MaxPool2d(3, 2, padding=1)], 64
    for outputs in (64, 128, 256, 512):
        for i in range(2):
            stride = 2 if i == 0 and outputs > 64 else 1
            shortcut = _projection(inputs, outputs, stride) if i == 0 else nn.Identity()
            layers.append(_Block(inputs, outputs, stride, shortcut))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def _mlp() -> nn.Module:
    hidden = [nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU()]
    return nn.Sequential(*hidden, nn.Linear(512, 10))


def _lenet5() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), nn.AvgPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )


NETS = {"mlp": _mlp, "lenet5": _lenet5, "resnet20": _resnet20, "resnet18": _resnet18}


def parameters(name: str) -> int:
    """How many trained numbers a net has."""
    return sum(p.numel() for p in NETS[name]().parameters())


def training_step(name: str, images: np.ndarray, labels: np.ndarray) -> Callable[[], None]:
    """A step as PyTorch's users take it: eager, SGD with Nesterov momentum, weight decay.

    Args:
        name: one of `NETS`.
        images: float32 `[batch, height, width, channels]` or `[batch, features]`.
        labels: `[batch]`.

    Returns:
        Runs a step to its end.
    """
    net = NETS[name]().train()
    x, y = torch.from_numpy(images), torch.from_numpy(labels.astype("int64"))
    if x.ndim == 4:
        net = net.to(memory_format=torch.channels_last)
        x = x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    sgd = torch.optim.SGD(
        net.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=_DECAY[name]
    )

    def run() -> None:
        sgd.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(net(x), y)
        loss.backward()
        sgd.step()
        loss.item()  # waits for the step

    return run
