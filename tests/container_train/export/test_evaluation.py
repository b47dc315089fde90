from pathlib import Path

import numpy as np
import pytest

from container_serve.artifact import read
from container_serve.predictor import Predictor
from container_serve.preprocess import preprocess
from container_train.errors import TrainError
from container_train.export import evaluation
from tests import trees
from tests.contract.models import write_model


def test_pictures_are_measured_in_their_order_by_every_artifact(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a", classes=("a", "b", "c"))
    second = write_model(tmp_path / "b", classes=("c", "b", "a"))
    artifacts = [read(first), read(second)]
    paths = []
    for index in range(20):
        paths.append(tmp_path / f"{index}.jpg")
        trees.picture(paths[-1], ((index * 37) % 256, (index * 91) % 256, (index * 53) % 256), seed=index)
    one, other = evaluation.probabilities(artifacts, paths, "all")
    predictor = Predictor(artifacts[0])
    for index in (0, 7, 19):
        alone = predictor.probabilities(preprocess(paths[index].read_bytes(), artifacts[0].preprocessing)[None])[0]
        np.testing.assert_array_equal(one[index], alone)
    np.testing.assert_array_equal(one, other)
    assert len(np.unique(one.argmax(1))) > 1
    assert evaluation.accuracy(one, one.argmax(1).tolist()) == 1
    (tmp_path / "7.jpg").write_bytes(b"no picture")
    with pytest.raises(TrainError, match=r"7\.jpg .* not an image"):
        evaluation.probabilities(artifacts, paths, "all")
