"""A plain script that trains all layers rightly, as people write it: what the recipe `finetune` is measured against.

python finetune.py DIR WEIGHTS SEED [ARCH EPOCHS HEAD_EPOCHS SIDE WORKERS]: prints the accuracies as JSON.
"""

import json
import os
import sys
import time
from typing import Any

import torch
import torchvision
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

folder, weights, seed, *more = sys.argv[1:]
arch, epochs, head_epochs, side, workers = (*more, *("resnet50", "25", "4", "224", "12")[len(more) :])
torch.manual_seed(int(seed))
device, batch = torch.device("cuda" if torch.cuda.is_available() else "cpu"), 64
started = time.perf_counter()
normalise = v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
end = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), normalise]
crop = [v2.RandomResizedCrop(int(side), scale=(0.35, 1.0), antialias=True), v2.RandomHorizontalFlip()]
train_view = v2.Compose([*crop, v2.TrivialAugmentWide(), *end, v2.RandomErasing(0.1)])
plain_view = v2.Compose([v2.Resize(round(int(side) * 232 / 224), antialias=True), v2.CenterCrop(int(side)), *end])
sets = {s: torchvision.datasets.ImageFolder(f"{folder}/{s}", plain_view) for s in ("train", "valid", "test")}
sets["train"].transform, classes = train_view, len(sets["train"].classes)
options: dict[str, Any] = {
    "num_workers": int(workers),
    "pin_memory": device.type == "cuda",
    "persistent_workers": int(workers) > 0,
}
loaders = {s: DataLoader(images, batch, shuffle=s == "train", **options) for s, images in sets.items()}
model = torchvision.models.get_model(arch, weights=None)
if weights != "none":
    state = torch.load(weights, map_location="cpu", weights_only=True)
    largest = torch.finfo(torch.float16).max  # an infinite variance is an overflow
    state = {k: v.float().nan_to_num(posinf=largest) for k, v in state.items() if not k.startswith("fc.")}
    model.load_state_dict(state, strict=False)
model.fc = torch.nn.Linear(model.fc.in_features, classes)
model.to(device, memory_format=torch.channels_last)
mix = v2.RandomChoice([v2.MixUp(alpha=0.2, num_classes=classes), v2.CutMix(alpha=1.0, num_classes=classes)])
loss_of = torch.nn.CrossEntropyLoss(label_smoothing=0.1)


def autocast() -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")


@torch.no_grad()
def accuracy(network: torch.nn.Module, split: str) -> float:
    network.eval()
    correct = torch.zeros((), device=device)
    for images, targets in loaders[split]:
        with autocast():
            predicted = network(images.to(device, memory_format=torch.channels_last)).argmax(1)
        correct += (predicted == targets.to(device)).sum()
    return float(correct) / len(sets[split])


def train(groups: list[dict[str, Any]], count: int, average: AveragedModel | None) -> dict[str, float]:
    optimizer = torch.optim.AdamW(groups, weight_decay=0.02)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.01, total_iters=len(loaders["train"]))
    fall = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(count - 1, 1) * len(loaders["train"]))
    schedule = torch.optim.lr_scheduler.SequentialLR(optimizer, [warm, fall], [len(loaders["train"])])
    best = {"valid": -1.0, "test": 0.0}
    for epoch in range(count):
        model.train(average is not None)  # with the layers frozen, their statistics too
        for images, targets in loaders["train"]:
            images, targets = images.to(device, memory_format=torch.channels_last), targets.to(device)
            if average is not None:
                images, targets = mix(images, targets)
            with autocast():
                loss = loss_of(model(images), targets)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            if average is not None:
                average.update_parameters(model)
        if average is not None and (valid := accuracy(average, "valid")) >= best["valid"]:
            best = {"valid": valid, "test": accuracy(average, "test"), "epoch": epoch + 1}
    return best


model.requires_grad_(False)
model.fc.requires_grad_(True)
train([{"params": model.fc.parameters(), "lr": 3e-3}], int(head_epochs), None)
model.requires_grad_(True)
factors = {"conv1": 0.06, "bn1": 0.06, "layer1": 0.13, "layer2": 0.25, "layer3": 0.5, "layer4": 1.0, "fc": 2.0}
rates = [{"params": getattr(model, name).parameters(), "lr": 3e-4 * factor} for name, factor in factors.items()]
ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
found = train(rates, int(epochs), ema)
processor = sum(os.times()[:4])  # of this process and of its children
print(json.dumps({**found, "seconds": time.perf_counter() - started, "processor": processor}))
