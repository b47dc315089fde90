from pathlib import Path

import numpy as np
import pytest

from container_serve.artifact import read
from container_serve.predictor import Predictor
from container_serve.preprocess import preprocess
from container_train.data.files import Files, Split
from container_train.errors import TrainError
from container_train.export import evaluation
from tests import trees
from tests.contract.models import write_model


def test_pictures_are_measured_in_their_order_by_every_artifact(tmp_path: Path) -> None:
    first = write_model(tmp_path / "a", classes=("a", "b", "c"))
    second = write_model(tmp_path / "b", classes=("c", "b", "a"))
    artifacts = [read(first), read(second)]
    for index in range(40):
        colour = ((index * 37) % 256, (index * 91) % 256, (index * 53) % 256)
        trees.picture(tmp_path / f"{index}.jpg", colour, seed=index)
    split = Split("all", Files(tmp_path, [f"{index}.jpg" for index in range(40)]), np.arange(40) % 3)
    evaluated = evaluation.evaluate(artifacts, split)
    one, other = evaluated.answers
    predictor = Predictor(artifacts[0])
    for index in (0, 7, 39):
        body = split.paths[index].read_bytes()
        alone = predictor.probabilities(preprocess(body, artifacts[0].preprocessing)[None])[0]
        order = np.argsort(-alone, kind="stable")
        np.testing.assert_array_equal(one.classes[index], order)
        np.testing.assert_array_equal(one.probabilities[index], alone[order])
        assert one.own[index] == alone[split.targets[index]]
    np.testing.assert_array_equal(one.classes, other.classes)
    assert one.finite.all()
    assert len(np.unique(one.predicted)) > 1
    assert one.accuracy(one.predicted) == 1
    assert (evaluated.split, evaluated.bad) == (split, {})
    for index in (7, 20):
        (tmp_path / f"{index}.jpg").write_bytes(b"no picture")
    without = evaluation.evaluate(artifacts, split)
    assert list(without.bad) == ["all/7.jpg", "all/20.jpg"]
    kept = np.delete(np.arange(40), [7, 20])
    np.testing.assert_array_equal(without.answers[0].probabilities, one.probabilities[kept])
    np.testing.assert_array_equal(without.answers[0].own, one.own[kept])
    np.testing.assert_array_equal(without.split.targets, split.targets[kept])
    assert list(without.split.paths) == [split.paths[index] for index in kept]
    gone = Split("all", Files(tmp_path / "gone", split.paths.names()), split.targets)
    with pytest.raises(TrainError, match=r"^channel all: none of its images can be read$"):
        evaluation.evaluate(artifacts, gone)
