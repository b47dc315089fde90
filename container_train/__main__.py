"""Train an image classifier: `python -m container_train --epochs 10 --lr 0.001 ...` over an /opt/ml tree."""

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

from container_serve.errors import ServeError
from container_serve.processes import die_with_parent
from container_train import command_line, job
from container_train.data import channels
from container_train.distributed.cluster import SCRATCH, Cluster
from container_train.errors import LOST_PEER, STOPPED, CollectiveError, Stopped, TrainError
from container_train.failure import reason
from container_train.model import architectures
from container_train.paths import SageMakerPaths, locked
from container_train.reporting import tracking

# Rounds that torch's threads spin for while they wait for each other, before they sleep. libgomp's own 300,000 take the
# cores from whatever runs beside them, as decoding processes, trials and other hosts of the job on one machine do.
SPINS = "1000"
RANKS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")


def writable(tree: SageMakerPaths) -> None:
    """Raises TrainError now rather than after the training."""
    for folder in (tree.model, tree.output, tree.checkpoints):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise TrainError(
                f"{folder} cannot be written ({error.strerror}): the job's user needs a folder there with some space"
            ) from None


def run(arguments: list[str], tree: SageMakerPaths) -> None:
    """The job. Raises TrainError, or Stopped when the platform asked for it."""
    hp = command_line.parse(arguments)
    tracking.check(hp.track)
    channels.splits(tree)
    shown = job.hyperparameters(tree, hp)
    writable(tree)
    if architectures.is_timm(hp.arch):
        from container_train.model import timm_models

        timm_models.configuration(hp.arch)  # before the images are read
    # Imported here: a wrong hyperparameter is answered before seconds are spent on importing torch.
    from container_train import pipeline
    from container_train.distributed.process_group import ProcessGroup, lost_peers
    from container_train.monitoring import monitor
    from container_train.training.stages import settled

    hp, group = settled(hp), ProcessGroup.from_environment()
    # Only the first process writes: it is its host that is watched.
    with monitor.Monitor() if group.rank else monitor.Monitor.start(tree, hp) as watching, lost_peers():
        if not group.rank:
            name = os.environ.get("TRAINING_JOB_NAME", "")
            watching.track = tracking.tracker(hp.track, tree.output, shown, name)
        pipeline.train(hp, tree, watching, group)


def alone(tree: SageMakerPaths) -> contextlib.AbstractContextManager[None]:
    """Hold the tree for one training: two by hand would write into each other's files, the failure file included.

    One of several processes of a job leaves that to who started it.
    """
    if "RANK" in os.environ or not tree.base.is_dir():
        return contextlib.nullcontext()
    busy = f"error: another training is running in {tree.base}: wait for it, or give another SAGEMAKER_BASE_DIR"
    return locked(tree.base, lambda: SystemExit(busy))


def main() -> int:
    if SCRATCH not in os.environ:  # what another launcher has left here is not of this job's processes
        for name in RANKS:
            os.environ.pop(name, None)
    # Whatever ends what has started this program ends it, too. By hand it may well outlive the shell.
    if SCRATCH in os.environ or os.environ.get("SAGEMAKER_PROGRAM") == __file__:
        die_with_parent(os.getppid())
    if "OMP_WAIT_POLICY" not in os.environ:  # read when torch is loaded, later than this
        os.environ.setdefault("GOMP_SPINCOUNT", SPINS)
    # The hyperparameter sagemaker_container_log_level. Never above INFO: the platform reads the metrics from the log.
    asked = os.environ.get("SM_LOG_LEVEL", "")
    level = min(int(asked), logging.INFO) if asked.isdecimal() else logging.INFO
    rank = int(os.environ.get("RANK", "0"))
    if rank:  # the first process speaks for all, but where something is wrong
        level = logging.WARNING
    logging.basicConfig(
        level=level, stream=sys.stdout, format=f"[{rank}] %(message)s" if rank else "%(message)s", force=True
    )
    logging.captureWarnings(True)
    tree = SageMakerPaths.from_environment()
    cluster = Cluster.of(tree, sys.argv[1:])
    if "RANK" not in os.environ and cluster.size > 1:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # no complaints about processes that end unannounced
        from container_train.distributed import launch

        with alone(tree):
            return launch.run(cluster, sys.argv[1:], tree)

    def fail(message: str, detail: str = "") -> None:
        """To the failure file, or to torchrun's agent that started this process as one of several."""
        with contextlib.suppress(OSError):  # a full disk: the line stands in the log
            if SCRATCH in os.environ:
                content = {"message": message, "timestamp": int(time.time())}
                Path(os.environ["TORCHELASTIC_ERROR_FILE"]).write_text(json.dumps(content))
            else:
                tree.write_failure(message, detail)

    try:
        try:
            with alone(tree):
                run(sys.argv[1:], tree)
        finally:  # torch's handler raises wherever the program is when a decoding process ends: not in what follows
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        return 0
    except (TrainError, ServeError) as error:
        print(f"error: {error}", file=sys.stderr)
        fail(str(error))
        return 1
    except CollectiveError as error:
        fail(str(error))
        return LOST_PEER
    except Stopped as stopped:
        if rank:
            return 0  # what was saved, the first one says
        print(f"stopped {stopped}", file=sys.stderr)
        fail(f"stopped {stopped}")
        return STOPPED
    except Exception as error:
        trace, message = traceback.format_exc(), reason(error)
        if message.startswith(type(error).__name__):  # nobody foresaw it
            print(trace, file=sys.stderr)
        print(f"error: {message}", file=sys.stderr)
        fail(message, trace)
        return 1


if __name__ == "__main__":
    code = main()
    # Python gives up its handlers some time before the process is gone: a wish to stop that comes in between must not
    # turn the end of a job that is done, or that has stopped and told what it saved, into a death by SIGTERM.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    if "RANK" in os.environ:
        # DistributedDataParallel keeps gloo's threads: an interpreter that ends beside them may hang, or abort.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
