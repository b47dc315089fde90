"""A recorder as the service's debughookconfig.json wants it, or with defaults of our own."""

import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from smdebug import SaveConfig, SaveConfigMode
from smdebug.core.json_config import create_hook_from_json_config
from smdebug.core.modes import ModeKeys
from smdebug.core.utils import error_handling_agent

from container_train.debugger import config
from container_train.debugger.config import SaveSchedule
from container_train.debugger.recorder import SMALL, Recorder

NEVER = SaveConfigMode(save_interval=1, start_step=1 << 62)
EXPRESSIONS = {  # of the collections that smdebug does not know
    "relu_input": "[Rr]e[Ll][Uu]_input_",
    "relu_activity": "[Rr]e[Ll][Uu]_activity_",
    "labels": "^labels$",
    "predictions": "^predictions$",
}


def make(schedule: SaveSchedule, interval: int, folder: Path, settings: Mapping[str, Any] | None) -> Recorder:
    """A recorder with the `settings` of the service's debughookconfig.json, or with our own defaults."""
    error_handling_agent.disable_smdebug = False  # for good, by what went wrong in an earlier hook of this process
    logging.getLogger("smdebug").setLevel(os.environ["SMDEBUG_LOG_LEVEL"].upper().replace("OFF", "CRITICAL"))
    recorder = _own(schedule, interval, folder) if settings is None else _as_asked(settings)
    recorder.first_process = True  # a claim file of a killed run would silence this one
    # Count on from the steps that were done before.
    recorder.step = recorder.init_step = schedule.first() - 1
    recorder.mode_steps = {
        ModeKeys.TRAIN: schedule.done - 1,
        ModeKeys.EVAL: schedule.done_evaluation - 1,
        ModeKeys.GLOBAL: recorder.step,
    }
    return recorder


def _own(schedule: SaveSchedule, interval: int, folder: Path) -> Recorder:
    first = list(range(config.FIRST_STEPS)) if schedule.done == 0 else []
    modes = {
        ModeKeys.TRAIN: SaveConfigMode(save_interval=interval, save_steps=first),
        **dict.fromkeys((ModeKeys.EVAL, ModeKeys.PREDICT, ModeKeys.GLOBAL), NEVER),
    }
    collections = list(config.COLLECTIONS)
    recorder = Recorder(out_dir=str(folder), include_collections=collections, save_config=SaveConfig(modes))
    for name in SMALL:
        recorder.get_collection(name).save_config = SaveConfig(
            {**modes, ModeKeys.EVAL: SaveConfigMode(save_interval=1)}
        )
    for name, expression in EXPRESSIONS.items():
        recorder.get_collection(name).include([expression])
    return recorder


def _as_asked(settings: Mapping[str, Any]) -> Recorder:
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, config.FILE)
        file.write_text(json.dumps(settings))
        recorder: Recorder = create_hook_from_json_config(Recorder, str(file))
    recorder.every_module = True
    # Give the service's collections what only this program knows; where ReLUs are asked for, their activity, too.
    for name in list(recorder.include_collections):
        collection = recorder.get_collection(name)
        if name in EXPRESSIONS and not collection.include_regex:
            collection.include([EXPRESSIONS[name]])
        sought = any(re.search(e, f"relu_{way}_0") for e in collection.include_regex for way in ("input", "output"))
        if sought and "relu_activity" not in recorder.include_collections:
            recorder.include_collections.append("relu_activity")
            recorder.get_collection("relu_activity").include([EXPRESSIONS["relu_activity"]])
            recorder.get_collection("relu_activity").save_config = collection.save_config
    return recorder
