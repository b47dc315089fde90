"""Stem, stages in order and head of networks of different families."""

import itertools

import pytest
import timm
import torch
import torchvision
from timm.models import group_parameters
from torch import nn

from container_train.model.layer_groups import STAGES, layer_groups

# The first and last module of each group, to the depth at which a reader knows them.
DRAWN = {
    "resnet50": ["conv1 bn1", "layer1 layer1", "layer2 layer2", "layer3 layer3", "layer4 layer4", "fc fc"],
    "convnext_tiny": ["features.0 features.0", "features.1 features.1", "features.2 features.3",
                      "features.4 features.5", "features.6 classifier.0", "classifier.2 classifier.2"],
    "densenet121": ["features.conv0 features.norm0", "features.denseblock1 features.denseblock1",
                    "features.transition1 features.denseblock2", "features.transition2 features.denseblock3",
                    "features.transition3 features.norm5", "classifier classifier"],
    "vit_b_32": ["class_token encoder.pos_embedding",
                 "encoder.layers.encoder_layer_0 encoder.layers.encoder_layer_2",
                 "encoder.layers.encoder_layer_3 encoder.layers.encoder_layer_5",
                 "encoder.layers.encoder_layer_6 encoder.layers.encoder_layer_8",
                 "encoder.layers.encoder_layer_9 encoder.ln", "heads.head heads.head"],
    "swin_t": ["features.0 features.0", "features.1 features.1", "features.2 features.3", "features.4 features.5",
               "features.6 norm", "head head"],
    "vgg11": ["features.0 features.0", "features.3 features.6", "features.8 features.11", "features.13 features.16",
              "features.18 classifier.3", "classifier.6 classifier.6"],
    "efficientnet_b0": ["features.0 features.0", "features.1 features.2", "features.3 features.4",
                        "features.5 features.6", "features.7 features.8", "classifier.1 classifier.1"],
    "shufflenet_v2_x0_5": ["conv1 conv1", "stage2 stage2", "stage3 stage3", "stage4 conv5", "fc fc"],
}  # fmt: skip


def last_layer(model: nn.Module) -> set[str]:
    """The tensors of the last module that has some, which classifies in these networks."""
    last = [name for name, _ in model.named_parameters()][-1].rpartition(".")[0]
    return {f"{last}.{name}" for name, _ in model.get_submodule(last).named_parameters()}


@pytest.mark.parametrize("arch", DRAWN)
def test_groups_are_stem_stages_and_head(arch: str) -> None:
    with torch.device("meta"):
        model = torchvision.models.get_model(arch, num_classes=3)
    groups = layer_groups(model, last_layer(model))
    assert [name for group in groups for name in group] == [name for name, _ in model.named_parameters()]
    for group, drawn in zip(groups, DRAWN[arch], strict=True):
        first, last = drawn.split()
        assert group[0].startswith(first), group
        assert group[-1].startswith(last), group


# timm describes the layers of its networks itself, by patterns that are written for each of them.
@pytest.mark.parametrize(
    "arch",
    ["resnet10t", "vit_tiny_patch16_224", "convnext_atto", "mobilenetv3_small_050", "swin_tiny_patch4_window7_224",
     "efficientformer_l1", "regnety_002", "maxvit_tiny_tf_224", "mixer_s16_224"],
)  # fmt: skip
def test_timm_s_own_groups_are_joined_and_not_crossed(arch: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(arch, num_classes=3)
    head = last_layer(model)
    layer = {
        name: number
        for number, names in group_parameters(model, model.group_matcher(coarse=True)).items()
        for name in names
    }
    *groups, last = layer_groups(model, head)
    assert set(last) == head
    assert 4 <= len(groups) <= STAGES + 1
    depths = [(min(map(layer.__getitem__, group)), max(map(layer.__getitem__, group))) for group in groups]
    assert depths[0][0] == 0
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(depths)), depths


def test_a_network_of_few_layers_has_few_groups() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    assert layer_groups(model, {"2.weight", "2.bias"}) == [["0.weight", "0.bias"], ["2.weight", "2.bias"]]
