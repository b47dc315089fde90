"""The network: any torchvision classification architecture with a new last layer, frozen up to a named module."""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.transforms import InterpolationMode

from container_serve.preprocess import MAX_SIDE, Preprocessing
from container_train.errors import TrainError
from container_train.model.weights import find, load

log = logging.getLogger(__name__)

INTERPOLATIONS = {
    InterpolationMode.NEAREST: "nearest",
    InterpolationMode.BILINEAR: "bilinear",
    InterpolationMode.BICUBIC: "bicubic",
}


@dataclass(frozen=True)
class Network:
    """The whole model, and its parts if it can be cut: model(x) == head(*backbone(x)), backbone frozen."""

    model: nn.Module
    preprocessing: Preprocessing
    weights: str
    backbone: fx.GraphModule | None
    head: nn.Module
    freeze_statistics: bool = False  # also those of batch norm layers that are trained

    def train_mode(self) -> None:
        """Set the trained layers to training mode; frozen ones keep their batch statistics."""
        self.model.eval()
        self.head.train()
        for module in self.head.modules():
            own = list(module.parameters(recurse=False))
            untrained = own and not any(parameter.requires_grad for parameter in own)
            if untrained or (self.freeze_statistics and isinstance(module, _BatchNorm)):
                module.eval()

    def eval_mode(self) -> None:
        self.model.eval()
        self.head.eval()

    def to(self, device: torch.device) -> None:
        """Move all parts; channels last is the faster layout for convolutions on CPU and GPU alike."""
        parts: list[Any] = [self.model, self.backbone, self.head]  # torch's stubs do not know memory_format here
        for part in filter(None, parts):
            part.to(device, memory_format=torch.channels_last)

    def trainable(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]


def build(
    arch: str,
    classes: int,
    *,
    weights: str,
    weights_file: Path | None,
    freeze_until: str,
    resize_size: int = 0,
    image_size: int = 0,
    seed: int = 0,
    freeze_statistics: bool = False,
) -> Network:
    """Build the network on the CPU. `weights_file` takes precedence over `weights`. Raises TrainError."""
    torch.manual_seed(seed)
    origin, state = find(arch, weights, weights_file)
    model = bare(arch, classes, pretrained=state is not None)
    new_layer = _new_layer(arch, classes)
    if state is not None:
        load(model, state, arch, origin, new_layer)
    _freeze(model, arch, freeze_until, new_layer)
    preprocessing = preprocessing_of(arch, resize_size, image_size)
    model.eval()
    _try(model, arch, preprocessing.crop)
    return _cut(Network(model, preprocessing, origin, None, model, freeze_statistics), arch)


def refrozen(network: Network, arch: str, classes: int, until: str) -> Network:
    """Return the network with its weights as they are, frozen up to the module `until`, on the CPU."""
    _freeze(network.model.cpu(), arch, until, _new_layer(arch, classes))
    return _cut(network, arch)


def _cut(network: Network, arch: str) -> Network:
    model = network.model
    backbone, head = _split(model, network.preprocessing.crop)
    log.info(
        "model: %s, weights %s, %d of %d parameters are trained, %s", arch, network.weights,
        sum(p.numel() for p in model.parameters() if p.requires_grad), sum(p.numel() for p in model.parameters()),
        "frozen layers run once per image if they can be cached" if backbone is not None else "nothing to cache",
    )  # fmt: skip
    return replace(network, backbone=backbone, head=head)


def bare(arch: str, classes: int, pretrained: bool = False) -> nn.Module:
    # Auxiliary heads only serve training from scratch; their weights in a file are ignored.
    options: dict[str, Any] = {"aux_logits": False} if arch in ("googlenet", "inception_v3") else {}
    if options:
        options |= {"transform_input": pretrained, "init_weights": not pretrained}
    model: nn.Module = torchvision.models.get_model(arch, weights=None, num_classes=classes, **options)
    return model


def _new_layer(arch: str, classes: int) -> set[str]:
    """Return the names of the tensors whose shape depends on the number of classes: the new last layer."""
    ours, other = (_shapes(arch, number).state_dict() for number in (classes, classes + 1))
    return {name for name in ours if ours[name].shape != other[name].shape}


def _shapes(arch: str, classes: int) -> nn.Module:
    """Build the network without numbers, which takes no memory."""
    try:
        with torch.device("meta"):
            return bare(arch, classes, pretrained=True)
    except NotImplementedError:  # regnet computes its widths with tensors
        return bare(arch, classes, pretrained=True)


def freezable(arch: str) -> list[str]:
    """List the modules up to which the network can be frozen: those with parameters that end before the last layer."""
    model, new_layer = _shapes(arch, 2), _new_layer(arch, 2)
    names = [name for name, _ in model.named_parameters()]
    first = min(index for index, name in enumerate(names) if name in new_layer)
    allowed = {tuple(name.split(".")[:depth]) for name in names[:first] for depth in range(1, name.count(".") + 1)}
    allowed -= {tuple(name.split(".")[:depth]) for name in names[first:] for depth in range(1, name.count(".") + 1)}
    return sorted(map(".".join, allowed), key=[name for name, _ in model.named_modules()].index)


def _freeze(model: nn.Module, arch: str, until: str, new_layer: set[str]) -> None:
    """Freeze the parameters up to and including the module `until`. Raises TrainError for one of the new layer."""
    names = [name for name, _ in model.named_parameters()]
    last = max((index for index, name in enumerate(names) if name.startswith(f"{until}.")), default=-1)
    frozen = {"none": set[str](), "backbone": set(names) - new_layer}.get(until, set(names[: last + 1]))
    if until != "none" and (not frozen or frozen & new_layer):
        raise TrainError(
            f"hyperparameter freeze-until has value {until!r}: expected backbone, none or a module with parameters"
            f" before the last layer, such as {', '.join(name for name in freezable(arch) if '.' not in name)}"
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad = name not in frozen


def preprocessing_of(arch: str, resize_size: int, image_size: int) -> Preprocessing:
    """Return the preprocessing of the architecture's newest ImageNet weights, with the sizes that the job gives."""
    presets = torchvision.models.get_model_weights(arch).DEFAULT.transforms()
    crop = image_size or presets.crop_size[0]
    resize = resize_size or round(presets.resize_size[0] * crop / presets.crop_size[0])
    if resize > MAX_SIDE:
        raise TrainError(
            f"hyperparameter image-size has value {crop}: images would be resized to {resize} pixels, more than"
            f" {MAX_SIDE}; use less, or give resize-size too"
        )
    if resize < crop:
        raise TrainError(f"hyperparameter resize-size has value {resize}: expected at least the image-size, {crop}")
    return Preprocessing(
        resize=resize, crop=crop, mean=tuple(presets.mean), std=tuple(presets.std),
        interpolation=INTERPOLATIONS[presets.interpolation],
    )  # fmt: skip


def _try(model: nn.Module, arch: str, side: int) -> None:
    """Raise TrainError if the architecture cannot take images of `side` x `side` pixels."""
    try:
        with torch.inference_mode():
            model(torch.zeros(1, 3, side, side))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise TrainError(
            f"hyperparameter image-size has value {side}: {arch} does not take images of that side; leave it at 0,"
            f" which is {preprocessing_of(arch, 0, 0).crop}, or try another ({str(error).splitlines()[0]})"
        ) from None


class _Tracer(fx.Tracer):
    """Keeps StochasticDepth a module: traced, it would no longer depend on the mode."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return super().is_leaf_module(module, qualified_name) or type(module).__name__ == "StochasticDepth"


def _split(model: nn.Module, side: int) -> tuple[fx.GraphModule | None, nn.Module]:
    """Cut the model before its first trained node. Returns (None, the model itself) without a usable cut.

    The two parts share the model's parameters. A random layer (dropout) between the last frozen and the first trained
    one belongs to the head: run once and cached, it would not be random.
    """
    try:
        graph = _Tracer().trace(model)
    except (fx.proxy.TraceError, TypeError, NotImplementedError, AttributeError) as error:
        log.info("model cannot be cut (%s): frozen layers run with every batch", str(error).split("\n")[0])
        return None, model
    nodes = [node for node in graph.nodes if node.op not in ("placeholder", "output")]
    states = [_parameters(model, node) for node in nodes]
    trained = next((i for i, ps in enumerate(states) if any(p.requires_grad for p in ps)), None)
    frozen = max((i for i, ps in enumerate(states[:trained]) if ps), default=None)
    if trained is None or frozen is None:
        return None, model
    cut = next((i for i in range(frozen + 1, trained) if _is_random(model, nodes[i])), trained)
    backbone, head = _halves(model, graph, nodes[:cut], nodes[cut:])
    if backbone is None:
        return None, model
    backbone.eval()
    head.eval()
    with torch.inference_mode():
        sample = torch.rand(2, 3, side, side)
        features = backbone(sample)
        whole = all(isinstance(f, torch.Tensor) and f.shape[:1] == (2,) for f in features)
        if not whole or not torch.allclose(model(sample), head(*features), atol=1e-4):
            return None, model
    return backbone, head


def _parameters(model: nn.Module, node: fx.Node) -> list[nn.Parameter]:
    if node.op == "call_module":
        return list(model.get_submodule(str(node.target)).parameters())
    if node.op == "get_attr":
        owner, _, name = str(node.target).rpartition(".")
        value = getattr(model.get_submodule(owner), name)
        return [value] if isinstance(value, nn.Parameter) else []
    return []


def _is_random(model: nn.Module, node: fx.Node) -> bool:
    if node.op != "call_module":
        return "dropout" in str(node.target)
    name = type(model.get_submodule(str(node.target))).__name__
    return "Dropout" in name or name == "StochasticDepth"


def _halves(
    model: nn.Module, graph: fx.Graph, first: list[fx.Node], second: list[fx.Node]
) -> tuple[fx.GraphModule | None, nn.Module]:
    later, output = set(second), next(node for node in graph.nodes if node.op == "output")
    crossing = [node for node in first if any(user in later or user is output for user in node.users)]
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    if not crossing or any(user in later for node in inputs for user in node.users):
        return None, model
    first_graph, second_graph = fx.Graph(), fx.Graph()
    copies: dict[fx.Node, fx.Node] = {node: first_graph.placeholder(node.name) for node in inputs}
    for node in first:
        copies[node] = first_graph.node_copy(node, lambda n: copies[n])
    first_graph.output(tuple(copies[node] for node in crossing))
    head: dict[fx.Node, fx.Node] = {node: second_graph.placeholder(node.name) for node in crossing}
    for node in second:
        head[node] = second_graph.node_copy(node, lambda n: head[n])
    second_graph.output(fx.map_arg(output.args[0], lambda n: head[n]))
    return fx.GraphModule(model, first_graph), fx.GraphModule(model, second_graph)
