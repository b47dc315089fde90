"""A user's program as sagemaker-inference's documentation shows it: torch eager fp32, torchvision's transforms."""

import io
import json
from pathlib import Path

import torch
import torchvision
from PIL import Image
from torchvision import transforms

TRANSFORM = transforms.Compose(
    [
        transforms.Resize(232),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ]
)


def model_fn(model_dir: str) -> torch.nn.Module:
    state = torch.load(Path(model_dir) / "model.pth", weights_only=True)
    model: torch.nn.Module = torchvision.models.resnet50(num_classes=len(state["fc.bias"]))
    model.load_state_dict(state)
    return model.eval()


def input_fn(body: bytes, content_type: str) -> torch.Tensor:
    picture: torch.Tensor = TRANSFORM(Image.open(io.BytesIO(bytes(body))).convert("RGB"))
    return picture[None]


def predict_fn(batch: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        answer: torch.Tensor = model(batch).softmax(1)
    return answer


def output_fn(answer: torch.Tensor, accept: str) -> str:
    values, indices = answer[0].topk(5)
    return json.dumps([{"index": int(i), "probability": float(v)} for v, i in zip(values, indices, strict=True)])
