"""Hyperparameters that change nothing are named."""

import pytest

from container_train import command_line, hyperparameters, no_effect


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("--momentum 0.5", ["momentum"]),
        ("--momentum 0.5 --optimizer sgd", []),
        ("--crop-scale 0.5", ["crop-scale"]),
        ("--crop-scale 0.5 --augment trivial", []),
        ("--augment-views 2", ["augment-views"]),
        ("--augment-views 2 --augment flip --freeze-until layer3", []),
        ("--augment-views 2 --random-erasing 0.1", []),
        ("--augment-views 2 --recipe finetune", ["augment-views"]),
        ("--layer-decay 0.5 --backbone-lr 0.1 --head-lr 0.1", ["head-lr", "layer-decay", "backbone-lr"]),
        ("--recipe finetune --layer-decay 0.7 --backbone-lr 0.1 --head-lr 0.1", []),
        ("--recipe finetune --head-epochs 0", []),
        ("--recipe finetune --weight-decay 0 --norm-decay on", ["norm-decay"]),
        ("--patience 10", ["patience"]),
        ("--patience 9", []),
        ("--debug off --on-rule stop", ["on-rule"]),
        ("--debug off --on-rule stop --rule overfit;step_outlier:stddev=4", []),
        ("--debug off --profile-interval 0 --on-rule stop --rule step_outlier", ["on-rule", "rule"]),
        ("--batch-norm frozen", ["batch-norm"]),
        ("--batch-norm frozen --freeze-until layer3", []),
        ("--debug off --profile-interval 0 --rule overfit:patience=3 --debug-interval 5", ["debug-interval", "rule"]),
        ("--measure none --precision fp32", ["precision"]),
        ("", []),
        ("--recipe views", []),
        ("--recipe finetune", []),
    ],
)
def test_each_is_named_with_what_it_needs(words: str, names: list[str]) -> None:
    said = list(no_effect.notices(command_line.parse(words.split())))
    assert [line.split()[1] for line in said] == names
    assert all(line.split(" has no effect: it needs ")[1] for line in said)


def test_all_of_them_exist() -> None:
    assert set(no_effect.NEEDS) <= set(hyperparameters.OPTIONS)
