"""The moving average of the weights."""

import pytest
import torch
from torch import nn

from container_train.training.averaging import Average


def test_the_average_follows_the_weights_and_forgets_the_first_ones() -> None:
    module = nn.Sequential(nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1))
    average = Average(module, 0.9)
    with torch.no_grad():
        for value in range(200):
            for tensor in (module.get_parameter("0.weight"), module.get_buffer("1.running_mean")):
                tensor.fill_(value)
            average.update_parameters(module)
    averages = average.module.state_dict()
    weight = float(averages["0.weight"])
    assert weight == pytest.approx(199 - 9, abs=0.1)  # behind by decay / (1 - decay) steps
    assert float(averages["1.running_mean"]) == pytest.approx(weight)
    assert not any(parameter.requires_grad for parameter in average.parameters())


def test_a_few_steps_already_leave_the_initial_weights_behind() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = Average(module, 0.999)
    with torch.no_grad():
        for value in [0.0] + [1.0] * 20:
            module.weight.fill_(value)
            average.update_parameters(module)
    assert float(average.module.state_dict()["weight"]) > 0.9
