"""A search on this machine as Optuna keeps it: in SQLite, trial by trial, so that it survives whatever ends us."""

import logging
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning
from optuna.trial import FrozenTrial, TrialState

from scripts.aws.errors import CloudError, one_line
from scripts.tuning.space import Choice, Range, Space, Value
from scripts.tuning.trials import Epoch, Search, Status, Trial

FILE = "study.db"
INTERRUPTED = "interrupted; tried again"
_STATUS: dict[TrialState, Status] = {
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
optuna.logging.set_verbosity(optuna.logging.WARNING)
# Hyperband and TPE's way with trials side by side are called experimental for what may still change in their interface.
warnings.simplefilter("ignore", ExperimentalWarning)
logging.getLogger("alembic").setLevel(logging.WARNING)


def distribution(part: Range | Choice) -> BaseDistribution:
    if isinstance(part, Choice):
        return CategoricalDistribution(part.values)
    if part.whole:
        return IntDistribution(int(part.low), int(part.high), log=part.logarithmic)
    return FloatDistribution(part.low, part.high, log=part.logarithmic)


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
            self.study = optuna.create_study(
                storage=storage,
                study_name="search",
                direction="maximize" if space.maximises else "minimize",
                load_if_exists=True,
            )
            begun = self.study.user_attrs.get("identity")
        except Exception as error:  # SQLAlchemy's errors, and alembic's, and Optuna's own
            if "disk is full" in str(error):
                raise CloudError(f"{folder}: no space is left: make room, or give other --results") from None
            reason = one_line(str(error).splitlines()[0] if str(error) else type(error).__name__)
            raise CloudError(
                f"{folder / FILE} cannot be read ({reason}): remove {folder}, or give another --name"
            ) from None
        if begun is None:
            self.study.set_user_attr("identity", dict(identity))
            self._begin()
        elif begun != dict(identity):
            other = next(key for key in {**begun, **identity} if begun.get(key) != identity.get(key))
            raise CloudError(
                f"{folder} is a search begun with another {other} ({begun.get(other)}, now {identity.get(other)}): give"
                f" another --name, or remove {folder}",
                2,
            )
        # Begun again, a sampler with the same seed would try the same again.
        seed = len(self._all())
        sampler: optuna.samplers.BaseSampler = (
            optuna.samplers.RandomSampler(seed=seed)
            if strategy == "random"
            else optuna.samplers.TPESampler(seed=seed, constant_liar=parallel > 1)
        )
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if strategy == "hyperband":
            most = max(2, space.most_epochs())
            pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=most, reduction_factor=3)
        self.study.sampler, self.study.pruner = sampler, pruner
        for left in self._all(TrialState.RUNNING):
            self.interrupted(left.number)

    def _begin(self) -> None:
        """The first trial is what the training program takes by itself: what is found has to beat that."""
        first = self.space.default()
        planned = self.space.grid() if self.strategy == "grid" else [first] if first else []
        for parameters in planned:
            self.study.enqueue_trial(parameters)

    def ask(self) -> Trial:
        """A new trial, running from now on."""
        made = self.study.ask({name: distribution(part) for name, part in self.space.searched.items()})
        self._live[made.number] = made
        made.set_user_attr("began", time.time())
        return self.trial(made.number)

    def report(self, number: int, record: Epoch) -> bool:
        """An epoch's metrics; whether the trial is to be ended, since others were better at this point."""
        trial = self._live[number]
        trial.set_user_attr("epochs", [*trial.user_attrs.get("epochs", []), dict(record)])
        trial.report(record[self.space.objective], int(record["epoch"]))
        return self.strategy == "hyperband" and trial.should_prune()

    def completed(self, number: int, value: float) -> None:
        self._tell(number, TrialState.COMPLETE, value)

    def pruned(self, number: int) -> None:
        self._tell(number, TrialState.PRUNED, reason="others were better by then")

    def failed(self, number: int, reason: str) -> None:
        self._tell(number, TrialState.FAIL, reason=reason)

    def interrupted(self, number: int) -> None:
        """Nobody's fault: it is tried again with the same values."""
        parameters = self._all()[number].params
        self._tell(number, TrialState.FAIL, reason=INTERRUPTED)
        if parameters:  # killed before they were drawn, it has none
            self.study.enqueue_trial(parameters)

    def waiting(self) -> int:
        return len(self._all(TrialState.WAITING))

    def trial(self, number: int) -> Trial:
        return _trial(self._all()[number])

    def trials(self) -> list[Trial]:
        """All but those that wait, and those that were interrupted and are tried again."""
        made = [_trial(found) for found in self._all() if found.state != TrialState.WAITING]
        return [trial for trial in made if trial.reason != INTERRUPTED]

    def search(self, name: str, where: str) -> Search:
        trials = self.trials()
        return Search(name, where, self.strategy, self.space, trials, sum(trial.seconds or 0 for trial in trials))

    def _all(self, *states: TrialState) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=states or None)

    def _tell(self, number: int, state: TrialState, value: float | None = None, reason: str = "") -> None:
        found = self._all()[number]
        facts: dict[str, Any] = {"reason": reason} if reason else {}
        if "began" in found.user_attrs:
            facts["seconds"] = round(time.time() - found.user_attrs["began"], 2)
        for key, fact in facts.items():
            self.study._storage.set_trial_user_attr(found._trial_id, key, fact)
        self.study.tell(number, value, state=state)
        self._live.pop(number, None)


def _trial(found: FrozenTrial) -> Trial:
    kept: Mapping[str, Any] = found.user_attrs
    parameters: Mapping[str, Value] = found.params
    epochs: Sequence[Epoch] = kept.get("epochs", ())
    return Trial(
        found.number,
        name_of(found.number),
        _STATUS.get(found.state, "running"),
        parameters,
        found.value if found.state == TrialState.COMPLETE else None,
        epochs,
        kept.get("seconds"),
        kept.get("reason", ""),
    )


def name_of(number: int) -> str:
    """The trial's folder below the study's."""
    return f"trial-{number:04d}"
