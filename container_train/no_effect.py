"""Hyperparameters that change nothing, since another one switches off what they are for."""

from collections.abc import Callable, Iterator

from container_train.hyperparameters import Hyperparameters, defaults

# What each needs: in words, and as a question.
NEEDS: dict[str, tuple[str, Callable[[Hyperparameters], bool]]] = {
    "momentum": ("optimizer sgd", lambda hp: hp.optimizer == "sgd"),
    "norm-decay": ("weight-decay above 0", lambda hp: hp.weight_decay > 0),
    "crop-scale": ("augment crop or trivial", lambda hp: hp.augment in ("crop", "trivial")),
    "augment-views": (
        "frozen layers, and augment or random-erasing",
        lambda hp: hp.freeze_until != "none" and (hp.augment != "none" or hp.random_erasing > 0),
    ),
    "head-lr": ("head-epochs above 0", lambda hp: hp.head_epochs > 0),
    "layer-decay": ("freeze-until other than backbone", lambda hp: hp.freeze_until != "backbone"),
    "backbone-lr": ("freeze-until other than backbone", lambda hp: hp.freeze_until != "backbone"),
    "batch-norm": ("freeze-until other than backbone", lambda hp: hp.freeze_until != "backbone"),
    "patience": ("more epochs than that", lambda hp: hp.patience < hp.epochs),
    "debug-interval": ("debug on", lambda hp: hp.debug == "on"),
    "on-rule": (
        "debug on, or profile-interval and a rule without tensors in rule",
        lambda hp: hp.debug == "on" or (hp.profile_interval > 0 and hp.rule != "none"),
    ),
    "rule": ("debug on or profile-interval", lambda hp: hp.debug == "on" or hp.profile_interval > 0),
    "precision": ("measure full", lambda hp: hp.measure == "full"),
}


def notices(hp: Hyperparameters) -> Iterator[str]:
    """Yield a sentence for each that is not its recipe's default, and changes nothing."""
    values, usual = hp.to_dict(), defaults(hp.recipe)
    for name, (words, met) in NEEDS.items():
        if values[name] != usual[name] and not met(hp):
            yield f"hyperparameter {name} has no effect: it needs {words}"
