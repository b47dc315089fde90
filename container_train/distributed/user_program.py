"""A user's own program under torchrun, on all hosts and GPUs.

distribution={"torch_distributed": {"enabled": True}} asks for it. The toolkit has a runner for that which its own
`train` never takes; this module takes it, as the framework module (SAGEMAKER_TRAINING_MODULE) of the toolkit.
"""

import os
import sys
from typing import Any

from sagemaker_training import entry_point, environment, errors, process
from sagemaker_training.torch_distributed import TORCH_DISTRIBUTED_MODULE, TorchDistributedRunner

from container_train.distributed.cluster import usable

STOP_SECONDS = "100"  # of the 120 between SIGTERM and SIGKILL, for a checkpoint; torchrun's own are 30


class Runner(TorchDistributedRunner):  # type: ignore[misc]
    """The toolkit's runner with a `run` that notices failures, and without a shell that splits arguments.

    The toolkit's own `run` has its two parameters in another order than its caller: a program's failure is success.
    """

    def run(self, wait: bool = True, capture_error: bool = False) -> Any:
        command = self._create_command()
        at = command.index(TORCH_DISTRIBUTED_MODULE)
        command[at : at + 1] = [sys.executable, "-m", "torch.distributed.run"]
        return process.check_error(
            command,
            errors.ExecuteUserScriptError,
            self._processes_per_host,
            cwd=environment.code_dir,
            capture_error=False,
        )


def main() -> None:
    """Run the program of this job. Raises the toolkit's errors, which it writes into the failure file."""
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", STOP_SECONDS)
    job = environment.Environment()
    runner = Runner(
        job.user_entry_point,
        job.to_cmd_args(),
        job.to_env_vars(),
        int(job.num_gpus) or 1,
        job.master_hostname,
        job.distribution_hosts,
        job.current_host,
        usable(job.network_interface_name),
        instance_type=job.current_instance_type,
    )
    entry_point.run(job.module_dir, job.user_entry_point, job.to_cmd_args(), job.to_env_vars(), runner_type=runner)
