"""A recorder as the service's debughookconfig.json wants it, or with defaults of our own."""

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smdebug import SaveConfig, SaveConfigMode
from smdebug.core.json_config import create_hook_from_json_config
from smdebug.core.modes import ModeKeys
from smdebug.core.utils import error_handling_agent

from container_train.debugger import config
from container_train.debugger.config import Plan
from container_train.debugger.recorder import SMALL, Recorder

NEVER = 1 << 62
EXPRESSIONS = {
    "relu_input": "[Rr]e[Ll][Uu]_input_",
    "relu_activity": "[Rr]e[Ll][Uu]_activity_",
    "labels": "^labels$",
    "predictions": "^predictions$",
}


def make(plan: Plan, interval: int, folder: Path, settings: Mapping[str, Any] | None, file: Path) -> Recorder:
    """A recorder with `settings` of the service (written to `file` for smdebug to read), or with our own defaults."""
    error_handling_agent.disable_smdebug = False  # for good, by what went wrong in an earlier hook of this process
    logging.getLogger("smdebug").setLevel(os.environ["SMDEBUG_LOG_LEVEL"].upper().replace("OFF", "CRITICAL"))
    if settings is not None:
        recorder: Recorder = create_hook_from_json_config(Recorder, str(file))
        recorder.every_module = True
        _complete(recorder)
        losses = recorder.get_collection("losses").save_config or recorder.save_config
        recorder.evaluation_interval = losses.get_save_config(ModeKeys.EVAL).save_interval
    else:
        recorder = _own(plan, interval, folder)
    recorder.first_process = True  # a claim file of a killed run would silence this one
    recorder.begin(plan)
    return recorder


def _own(plan: Plan, interval: int, folder: Path) -> Recorder:
    def when(evaluation: bool) -> Any:
        never = SaveConfigMode(save_interval=1, start_step=NEVER)
        first = list(range(config.FIRST_STEPS)) if plan.done == 0 else []
        return SaveConfig(
            {
                ModeKeys.TRAIN: SaveConfigMode(save_interval=interval, save_steps=first),
                ModeKeys.EVAL: SaveConfigMode(save_interval=plan.evaluation_interval()) if evaluation else never,
                ModeKeys.PREDICT: never,
                ModeKeys.GLOBAL: never,
            }
        )

    recorder = Recorder(
        out_dir=str(folder), include_collections=list(config.COLLECTIONS), save_config=when(evaluation=False)
    )
    recorder.evaluation_interval = plan.evaluation_interval()
    for name in SMALL:
        recorder.get_collection(name).save_config = when(evaluation=True)
    for name, expression in EXPRESSIONS.items():
        recorder.get_collection(name).include([expression])
    return recorder


def _complete(recorder: Recorder) -> None:
    """Give the service's collections what only this program knows, and save the activity where ReLUs are asked for."""
    for name in list(recorder.include_collections):
        collection = recorder.get_collection(name)
        if name in EXPRESSIONS and not collection.include_regex:
            collection.include([EXPRESSIONS[name]])
        sought = any(re.search(e, f"relu_{way}_0") for e in collection.include_regex for way in ("input", "output"))
        if sought and "relu_activity" not in recorder.include_collections:
            recorder.include_collections.append("relu_activity")
            recorder.get_collection("relu_activity").include([EXPRESSIONS["relu_activity"]])
            recorder.get_collection("relu_activity").save_config = collection.save_config
