"""The cut of a network into its frozen layers, which can be run once per image, and the layers that are trained."""

import copy
import functools
import logging
import operator
import re
from collections.abc import Set

import torch
from torch import fx, nn

from container_train.model.architectures import is_timm

log = logging.getLogger(__name__)


def cut(model: nn.Module, arch: str, side: int, new_layer: Set[str]) -> tuple[fx.GraphModule | None, nn.Module]:
    """Cut the model before its first trained node. Returns (None, the model itself) without a usable cut.

    The two parts share the model's parameters.
    """
    backbone, head = _before_last_layer(model, arch, new_layer) if is_timm(arch) else _before_trained_node(model)
    if backbone is None:
        return None, model
    backbone.eval()
    head.eval()
    try:
        with torch.inference_mode():
            sample = torch.rand(2, 3, side, side)
            features = backbone(sample)
            whole = all(isinstance(f, torch.Tensor) and f.shape[:1] == (2,) for f in features)
            same = whole and torch.allclose(model(sample), head(*features), atol=1e-4)
    except (RuntimeError, AttributeError, TypeError, IndexError):  # the last layer is not what comes last
        same = False
    return (backbone, head) if same else (None, model)


def _before_last_layer(model: nn.Module, arch: str, new_layer: Set[str]) -> tuple[fx.GraphModule | None, nn.Module]:
    """Cut before the last layer, if nothing else is trained: what the model gives with nothing in that layer's place.

    Some have two last layers for the same features, and give the mean of both. timm's networks are not traced: what
    many of them do depends on the mode and the sizes at the time of tracing.
    """
    if any(p.requires_grad for key, p in model.named_parameters() if key not in new_layer):
        return None, model
    layers = sorted({key.rpartition(".")[0] for key in new_layer})
    backbone = copy.copy(model)
    for layer in layers:
        part = backbone
        *path, last = layer.split(".")
        for name in path:  # copies of what holds the layer; all else is shared
            part._modules = {**part._modules, name: copy.copy(part.get_submodule(name))}
            part = part.get_submodule(name)
        part._modules = {**part._modules, last: nn.Identity()}
    called = re.sub(r"\W", "_", arch)  # features are cached under the code, so that has to name the architecture
    first, second = fx.Graph(), fx.Graph()
    first.output((first.call_module(called, (first.placeholder("x"),)),))
    x = second.placeholder("x")
    outputs = []
    for layer in layers:
        if isinstance(model.get_submodule(layer), nn.Conv2d):  # of maps of one pixel, which the model flattens
            x_map = second.call_method("unflatten", (x, 1, (-1, 1, 1)))
            outputs.append(second.call_method("flatten", (second.call_module(layer, (x_map,)), 1)))
        else:
            outputs.append(second.call_module(layer, (x,)))
    total = functools.reduce(lambda one, other: second.call_function(operator.add, (one, other)), outputs)
    second.output(second.call_function(operator.truediv, (total, len(layers))) if len(layers) > 1 else total)
    return fx.GraphModule(nn.ModuleDict({called: backbone}), first), fx.GraphModule(model, second)


class _Tracer(fx.Tracer):
    """Keeps StochasticDepth a module: traced, it would no longer depend on the mode."""

    def is_leaf_module(self, module: nn.Module, qualified_name: str) -> bool:
        return super().is_leaf_module(module, qualified_name) or type(module).__name__ == "StochasticDepth"


def _before_trained_node(model: nn.Module) -> tuple[fx.GraphModule | None, nn.Module]:
    """Cut the traced model before its first trained node.

    A random layer (dropout) between the last frozen and the first trained one belongs to the head: run once and cached,
    it would not be random.
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
    return _halves(model, graph, nodes[:cut], nodes[cut:])


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
