"""RegNetY-200MF in PyTorch, channels last: the peer that `make bench` trains beside ours.

    python -m tests.bench.torch_regnety

Needs nothing but PyTorch, so that it also runs in an environment of its own.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from tests.bench import workload

WIDTHS, DEPTHS, GROUP_WIDTH, STEM_WIDTH = (24, 56, 152, 368), (1, 1, 4, 7), 8, 32  # pycls


def convolution(width_in: int, width: int, kernel_size: int, stride: int = 1, groups: int = 1):
    """A convolution without bias, padded to keep the size at stride 1, and its normalisation."""
    padding = kernel_size // 2
    return [
        nn.Conv2d(width_in, width, kernel_size, stride, padding, groups=groups, bias=False),
        nn.BatchNorm2d(width),
    ]


class SqueezeAndExcitation(nn.Module):
    """Scales each channel by what the means of all channels suggest."""

    def __init__(self, width: int, squeezed: int):
        super().__init__()
        self.scale = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(width, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x):
        """`[batch, width, height, width]` in and out."""
        return x * self.scale(x)


class Block(nn.Module):
    """A Y block: 1x1, grouped 3x3, squeeze and excitation, 1x1, beside a shortcut."""

    def __init__(self, width_in: int, width: int, stride: int):
        super().__init__()
        self.residual = nn.Sequential(
            *convolution(width_in, width, 1),
            nn.ReLU(inplace=True),
            *convolution(width, width, 3, stride, width // GROUP_WIDTH),
            nn.ReLU(inplace=True),
            SqueezeAndExcitation(width, round(0.25 * width_in)),
            *convolution(width, width, 1),
        )
        changes = width_in != width or stride != 1
        self.shortcut = nn.Sequential(*(convolution(width_in, width, 1, stride) if changes else ()))

    def forward(self, x):
        """`[batch, width_in, height, width]` to `[batch, width, height / stride, ...]`."""
        return functional.relu(self.shortcut(x) + self.residual(x))


def build_regnety() -> nn.Module:
    """Maps pictures `[batch, 3, size, size]` to logits `[batch, 1000]`."""
    parts = [*convolution(3, STEM_WIDTH, 3, 2), nn.ReLU(inplace=True)]
    width_in = STEM_WIDTH
    for width, depth in zip(WIDTHS, DEPTHS, strict=True):
        for i in range(depth):
            parts.append(Block(width_in, width, stride=2 if i == 0 else 1))
            width_in = width
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width_in, workload.CLASSES))
    network = nn.Sequential(*parts, *head)
    count = sum(p.numel() for p in network.parameters())
    if count != workload.PARAMETERS:
        raise AssertionError(f"It must have {workload.PARAMETERS} parameters; it has {count}.")
    return network


def main() -> None:
    """Trains on random pictures as often as it is asked to."""
    torch.set_num_threads(workload.THREADS)
    torch.manual_seed(0)
    network = build_regnety().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        network.parameters(),
        lr=workload.LEARNING_RATE,
        momentum=workload.MOMENTUM,
        nesterov=True,
        weight_decay=workload.WEIGHT_DECAY,
    )
    image = torch.rand(workload.BATCH_SIZE, 3, workload.IMAGE_SIZE, workload.IMAGE_SIZE)
    image = image.to(memory_format=torch.channels_last)
    label = torch.randint(0, workload.CLASSES, (workload.BATCH_SIZE,))

    def train(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            functional.cross_entropy(network(image), label).backward()
            optimizer.step()

    workload.answer(f"PyTorch {torch.__version__}", train)


if __name__ == "__main__":
    main()
