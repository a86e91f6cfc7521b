"""The U-Net of a preset in PyTorch, for `step.py` and `gpu.py`; runs in an environment of its own with torch alone.

Reads one JSON line (the network), answers ``{"parameters": n}``, then for each line ``N`` on standard input
takes N training steps and answers their seconds. With ``"device": "cuda"`` it computes in bfloat16, compiled, and
is ready when it answers first.
"""

import json
import sys
import time

import torch
from torch import nn
from torch.nn import functional


def convolution(before: int, after: int, kernel: int = 3) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(after, eps=1e-3, momentum=0.05),
        nn.ReLU(inplace=True),
    )


def double(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(convolution(before, after), convolution(after, after))


class UNet(nn.Module):
    def __init__(self, width: int, depth: int, widest: int, stem: int, dropout: float):
        super().__init__()
        channels = [min(width * 2**level, widest) for level in range(depth + 1)]
        self.stem = nn.Conv2d(1, channels[0], 2 * stem, stem, padding=stem // 2) if stem > 1 else None
        first = channels[0] if stem > 1 else 1
        self.down = nn.ModuleList(
            double(a, b) for a, b in zip([first, *channels], channels[:-1], strict=False)
        )
        self.bottom = double(channels[-2], channels[-1])
        self.dropout = nn.Dropout2d(dropout)
        levels = list(reversed(range(depth)))
        self.narrow = nn.ModuleList(convolution(channels[n + 1], channels[n], 1) for n in levels)
        self.up = nn.ModuleList(double(2 * channels[n], channels[n]) for n in levels)
        self.mask = nn.Conv2d(channels[0], 1, 1)
        self.presence = nn.Linear(channels[-1], 1)
        self.scale, self.multiple = stem, stem * 2**depth

    def forward(self, frames):
        height, width = frames.shape[2:]
        tensor = frames / 255
        tensor = functional.layer_norm(tensor, tensor.shape[1:], eps=1e-5)
        tensor = functional.pad(tensor, (0, -width % self.multiple, 0, -height % self.multiple))
        if self.stem is not None:
            tensor = self.stem(tensor)
        skips = []
        for block in self.down:
            tensor = block(tensor)
            skips.append(tensor)
            tensor = functional.max_pool2d(tensor, 2)
        tensor = bottom = self.dropout(self.bottom(tensor))
        for narrow, up, skip in zip(self.narrow, self.up, reversed(skips), strict=True):
            tensor = functional.interpolate(narrow(tensor), scale_factor=2)
            tensor = up(torch.cat([skip, tensor], 1))
        tensor = self.mask(tensor)
        if self.scale > 1:
            tensor = functional.interpolate(tensor, scale_factor=self.scale, mode="bilinear")
        tensor = tensor[:, :, :height, :width]
        return torch.sigmoid(tensor), torch.sigmoid(self.presence(bottom.mean((2, 3))))


def loss_of(mask, presence, truth, there, smooth: float):
    both, either = (truth * mask).sum((1, 2, 3)), (truth + mask).sum((1, 2, 3))
    dice = 1 - (2 * both + smooth) / (either + smooth)
    entropy = functional.binary_cross_entropy(mask, truth)
    return dice.mean() + entropy + 0.5 * functional.binary_cross_entropy(presence, there)


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    torch.set_num_threads(asked["threads"])
    torch.manual_seed(0)
    device = asked.get("device", "cpu")
    layout = torch.channels_last if asked["channels_last"] else torch.contiguous_format
    model = UNet(**asked["network"]).to(device, memory_format=layout).train()
    shape = (asked["batch"], 1, *asked["size"])
    frames = (torch.rand(shape) * 255).to(device, memory_format=layout)
    truth = (torch.rand(shape) > 0.9).float().to(device, memory_format=layout)
    there = torch.ones(asked["batch"], 1, device=device)
    on_gpu = device == "cuda"
    options = {"fused": True} if on_gpu else {}
    kind = getattr(torch.optim, asked.get("optimiser", "Adam"))
    optimiser = kind(model.parameters(), 1e-3, **options)
    parameters = sum(values.numel() for values in model.parameters())

    def compute() -> torch.Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=on_gpu):
            mask, presence = model(frames)
        return loss_of(mask.float(), presence.float(), truth, there, asked["smooth"])

    forward = torch.compile(compute) if on_gpu else compute

    def steps(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            optimiser.zero_grad(set_to_none=True)
            loss = forward()
            loss.backward()
            optimiser.step()
            if not on_gpu:
                loss.item()
        loss.item()
        return time.perf_counter() - started

    if on_gpu:
        steps(3)
    facts = {"parameters": parameters, "version": torch.__version__}
    print(json.dumps(facts), flush=True)
    for line in sys.stdin:
        print(steps(int(line)), flush=True)


if __name__ == "__main__":
    main()
