"""How much each hyperparameter matters, as Optuna's fANOVA sees it, of a search in the cloud, too."""

import warnings

from scripts.tuning.space import Choice
from scripts.tuning.trials import Search, is_number

FEWEST = 4  # trials; fewer say nothing


def shares(search: Search) -> dict[str, float]:
    """name -> share of the objective's variation, 0 to 1; empty where trials are few or all alike."""
    rated = [trial for trial in search.trials if trial.status == "completed" and is_number(trial.value)]
    rated = [trial for trial in rated if trial.parameters.keys() >= search.space.searched.keys()]
    if len(rated) < FEWEST or len({trial.value for trial in rated}) < 2:
        return {}
    if len(search.space.searched) == 1:
        return dict.fromkeys(search.space.searched, 1.0)
    import optuna

    from scripts.tuning.study import distribution

    study = optuna.create_study(direction="maximize" if search.space.maximises else "minimize")
    # A search that was warm-started elsewhere may have values outside of what is searched now.
    study.add_trials(
        [
            optuna.trial.create_trial(
                params={name: trial.parameters[name] for name in search.space.searched},
                distributions={name: distribution(part) for name, part in search.space.searched.items()},
                value=trial.value,
            )
            for trial in rated
            if all(part.holds(trial.parameters[name]) for name, part in search.space.searched.items())
            and all(len(part.values) > 1 for part in search.space.searched.values() if isinstance(part, Choice))
        ]
    )
    if len(study.trials) < FEWEST:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        found = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return {name: float(share) for name, share in found.items()}
