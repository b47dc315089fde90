"""A search on this machine as Optuna keeps it: in SQLite, trial by trial, so that it survives a killed process."""

import logging
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from scripts.aws.errors import CloudError
from scripts.tuning.space import Choice, Range, Space
from scripts.tuning.trials import Epoch, Search, Status, Trial, is_number

FILE = "study.db"
INTERRUPTED = "interrupted; tried again"
FEWEST = 4  # trials that say how much each hyperparameter matters
_STATUS: dict[TrialState, Status] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
_STATES = {status: state for state, status in _STATUS.items()}
optuna.logging.set_verbosity(optuna.logging.WARNING)
# Hyperband and TPE's way with trials side by side are called experimental for what may still change in their interface.
warnings.simplefilter("ignore", ExperimentalWarning)
logging.getLogger("alembic").setLevel(logging.WARNING)


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """The space as Optuna has it."""

    def of(part: Range | Choice) -> BaseDistribution:
        if isinstance(part, Choice):
            return CategoricalDistribution(part.values)
        if part.whole:
            return IntDistribution(int(part.low), int(part.high), log=part.logarithmic)
        return FloatDistribution(part.low, part.high, log=part.logarithmic)

    return {name: of(part) for name, part in space.searched.items()}


def _create(space: Space, **storage: Any) -> optuna.Study:
    return optuna.create_study(direction="maximize" if space.maximises else "minimize", **storage)


def broken(folder: Path, error: Exception, remedy: str) -> CloudError:
    """The one line for what SQLite says, without the SQL that SQLAlchemy adds."""
    cause = error.__cause__ or error
    said = str(getattr(cause, "orig", None) or cause)
    if "disk is full" in said or "disk I/O error" in said:
        return CloudError(f"{folder}: no space is left: make room, or give other --results")
    return CloudError(
        f"{folder / FILE} cannot be used ({said.splitlines()[0] if said else type(error).__name__}): {remedy}"
    )


class Study:
    """One search. `identity` is what makes trials comparable; a study that was begun with another is refused."""

    def __init__(
        self, folder: Path, space: Space, strategy: str, identity: Mapping[str, str], *, parallel: int
    ) -> None:
        """Raises CloudError: a file that is no study, or a study of something else."""
        self.folder, self.space, self.strategy = folder, space, strategy
        self._live: dict[int, optuna.Trial] = {}
        try:
            storage = optuna.storages.RDBStorage(
                f"sqlite:///{folder / FILE}", engine_kwargs={"connect_args": {"timeout": 60}}
            )
            self.study = _create(space, storage=storage, study_name="search", load_if_exists=True)
            begun = self.study.user_attrs.get("identity")
        except Exception as error:  # SQLAlchemy's errors, and alembic's, and Optuna's own
            raise broken(folder, error, f"remove {folder}, or give another --name") from None
        if begun is None:
            self.study.set_user_attr("identity", dict(identity))
            # The first trial has the training program's own values: what is found has to beat that.
            first = space.default()
            for parameters in space.grid() if strategy == "grid" else [first] if first else []:
                self.study.enqueue_trial(parameters)
        elif begun != dict(identity):
            other = next(key for key in {**begun, **identity} if begun.get(key) != identity.get(key))
            values = f" ({begun.get(other)}, now {identity.get(other)})" if other in ("data", "weights") else ""
            what = "search space, or other hyperparameters" if other == "space" else other + values
            raise CloudError(f"{folder} was begun with another {what}: give another --name, or remove it", 2)
        # Begun again, a sampler with the same seed would try the same again.
        seed = len(self._all())
        self.study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=parallel > 1)
        if strategy == "random":
            self.study.sampler = optuna.samplers.RandomSampler(seed=seed)
        self.study.pruner = optuna.pruners.NopPruner()
        if strategy == "hyperband":
            most = max(2, space.most_epochs())
            self.study.pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=most, reduction_factor=3)
        for left in self._all():
            if left.state == TrialState.RUNNING:
                self.interrupted(left.number)

    def ask(self) -> Trial:
        """A new trial, running from now on."""
        made = self.study.ask(distributions(self.space))
        self._live[made.number] = made
        made.set_user_attr("began", time.time())
        return _trial(self._all()[made.number])

    def report(self, number: int, record: Epoch) -> bool:
        """Keep an epoch's metrics; tells whether the trial is to be ended, since others were better at this point."""
        trial = self._live[number]
        trial.set_user_attr("epochs", [*trial.user_attrs.get("epochs", []), dict(record)])
        trial.report(record[self.space.objective], int(record["epoch"]))
        return self.strategy == "hyperband" and trial.should_prune()

    def end(self, number: int, status: Status, value: float | None = None, reason: str = "") -> None:
        """A trial is over: "completed" with a value, "pruned" or "failed" for a reason."""
        found = self._all()[number]
        facts: dict[str, Any] = {"reason": reason} if reason else {}
        if "began" in found.user_attrs:
            facts["seconds"] = round(time.time() - found.user_attrs["began"], 2)
        for key, fact in facts.items():
            self.study._storage.set_trial_user_attr(found._trial_id, key, fact)
        self.study.tell(number, value, state=_STATES[status])
        self._live.pop(number, None)

    def interrupted(self, number: int) -> None:
        """Nobody's fault: it is tried again with the same values."""
        parameters = self._all()[number].params
        self.end(number, "failed", reason=INTERRUPTED)
        if parameters:  # killed before they were drawn, it has none
            self.study.enqueue_trial(parameters)

    def trials(self) -> list[Trial]:
        """All but those that wait, and those that were interrupted and are tried again."""
        made = [_trial(found) for found in self._all() if found.state != TrialState.WAITING]
        return [trial for trial in made if trial.reason != INTERRUPTED]

    def search(self, name: str, where: str) -> Search:
        trials = self.trials()
        return Search(name, where, self.strategy, self.space, trials, sum(trial.seconds or 0 for trial in trials))

    def _all(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)


def _trial(found: FrozenTrial) -> Trial:
    return Trial(
        found.number,
        f"trial-{found.number:04d}",
        _STATUS.get(found.state, "running"),
        found.params,
        found.value if found.state == TrialState.COMPLETE else None,
        found.user_attrs.get("epochs", ()),
        found.user_attrs.get("seconds"),
        found.user_attrs.get("reason", ""),
    )


def importance(search: Search) -> dict[str, float]:
    """The share of each hyperparameter in what sets the best trials apart, 0 to 1, by Optuna's PED-ANOVA.

    Empty where trials are few or all alike.
    """
    space = search.space
    rated = [trial for trial in search.trials if trial.status == "completed" and is_number(trial.value)]
    # A search that was warm-started elsewhere may have values outside of what is searched now.
    rated = [t for t in rated if all(n in t.parameters and p.holds(t.parameters[n]) for n, p in space.searched.items())]
    if len(rated) < FEWEST or len({trial.value for trial in rated}) < 2:
        return {}
    study, parts = _create(space), distributions(space)
    for trial in rated:
        parameters = {name: trial.parameters[name] for name in parts}
        study.add_trial(optuna.trial.create_trial(params=parameters, distributions=parts, value=trial.value))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # fANOVA needs scikit-learn and SciPy, 200 MB that .venv-cloud does without.
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
