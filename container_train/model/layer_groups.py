"""The parameters of a network by depth, for learning rates that grow from its first layers to its last."""

from collections import Counter
from collections.abc import Sequence, Set

from torch import nn

STAGES = 4  # between stem and head, as most networks are drawn; a transformer's blocks are spread over them
DOMINANT = 0.8  # of all tensors: a module that holds more is a container, whose children are the layers
SMALL = 1 / 3  # of the mean number of tensors: a norm, a downsampling; it belongs to the stage after it


def layer_groups(model: nn.Module, head: Set[str]) -> list[list[str]]:
    """Return the names of all parameters in groups: the stem, at most STAGES stages in order, the head.

    `head` names the parameters of the new last layer: `Network.new_layer`. No group is empty.
    """
    names = [name for name, _ in model.named_parameters() if name not in head]
    units = _units(names)
    small = SMALL * len(names) / len(units)
    stem = next((i for i, unit in enumerate(units) if len(unit) >= small), 0) or 1
    layers: list[list[str]] = []
    pending: list[str] = []
    for unit in units[stem:]:
        pending = [*pending, *unit]
        if len(unit) >= small:
            layers.append(pending)
            pending = []
    if pending:  # a norm after the last stage
        (layers or [units[0]])[-1].extend(pending)
    stages: list[list[str]] = [[] for _ in range(min(STAGES, len(layers)))]
    for i, layer in enumerate(layers):
        stages[i * len(stages) // len(layers)].extend(layer)
    last = [name for name, _ in model.named_parameters() if name in head]
    return [group for group in ([name for unit in units[:stem] for name in unit], *stages, last) if group]


def _units(names: Sequence[str]) -> list[list[str]]:
    """Split the names into modules, in order: the children of containers, so that there are several of alike size."""
    prefixes = {name: name.split(".")[0] for name in names}
    while True:
        counts = Counter(prefixes.values())
        (largest, count), total = counts.most_common(1)[0], len(counts)
        inside = [name.split(".") for name in names if prefixes[name] == largest]
        depth = largest.count(".") + 2
        is_layer = all(len(path) <= depth for path in inside)  # what it holds are tensors
        if is_layer or (total > STAGES and count <= DOMINANT * len(names)):
            break
        prefixes |= {".".join(path): ".".join(path[:depth]) for path in inside}
    units: dict[str, list[str]] = {}
    for name in names:
        units.setdefault(prefixes[name], []).append(name)
    return list(units.values())
