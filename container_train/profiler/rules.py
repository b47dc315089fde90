"""The profiler's rules: their names, their parameters' defaults, what to do when they fire, and all of them at once.

Definitions, parameters and defaults are those of SageMaker Debugger's profiler rules, as documented in
https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-profiler-rules.html and, parameter by parameter, in
the public package smdebug-rulesconfig (https://github.com/awslabs/sagemaker-debugger-rulesconfig,
smdebug_rulesconfig/profiler_rules/rules.py). Where that leaves something open, or something was added, the docstring of
the rule says so. `scan_interval_us` is missing, except for one rule: here all that was written is looked at each time.
"""

from collections.abc import Mapping
from pathlib import Path

from container_train.monitoring import findings
from container_train.monitoring.findings import Finding, Parameters, Rule
from container_train.profiler import step_times, store, utilization
from container_train.profiler.evidence import Context

RULES: dict[str, Rule] = {
    "cpu_bottleneck": Rule(
        utilization.cpu_bottleneck,
        {"threshold": 50.0, "gpu_threshold": 10.0, "cpu_threshold": 90.0, "patience": 1000},
        "decode in more processes (--workers), use an instance with more cores for each GPU, or take work off the CPU:"
        " smaller images, --augment none (then features are cached)",
    ),
    "io_bottleneck": Rule(
        utilization.io_bottleneck,
        {"threshold": 50.0, "gpu_threshold": 10.0, "io_threshold": 50.0, "patience": 1000},
        "use input mode FastFile or a faster volume, and fewer, larger files; more decoding processes (--workers) hide"
        " some of the wait",
    ),
    "low_gpu_utilization": Rule(
        utilization.low_gpu_utilization,
        {"threshold_p95": 70.0, "threshold_p5": 10.0, "window": 500, "patience": 1000},
        "look at dataloader, cpu_bottleneck and io_bottleneck; raise --batch-size, or use a smaller instance",
    ),
    "batch_size": Rule(
        utilization.batch_size,
        {
            "cpu_threshold_p95": 70.0,
            "gpu_threshold_p95": 70.0,
            "gpu_memory_threshold_p95": 70.0,
            "patience": 1000,
            "window": 500,
        },
        "raise --batch-size (and --lr with it), or use a smaller instance",
    ),
    "gpu_memory_increase": Rule(
        utilization.gpu_memory_increase,
        {"increase": 5.0, "patience": 1000, "window": 10, "scan_interval_us": 60_000_000},
        "look for tensors that are kept from step to step (a loss that is summed up without .item(), lists of outputs)",
    ),
    "load_balancing": Rule(
        utilization.load_balancing,
        {"threshold": 0.5, "patience": 1000},
        "give every GPU and host the same share of the images",
    ),
    "overall_system_usage": Rule(utilization.overall_system_usage, {}),
    "dataloader": Rule(
        step_times.dataloader,
        {"min_threshold": 70.0, "max_threshold": 200.0, "wait_threshold": 10.0, "wait_limit": 50.0},
        "decode in as many processes as there are cores (--workers -1; in docker run they need shared memory), with"
        " smaller images, from a faster disk; with --augment none the frozen layers' features are cached, and nothing"
        " is decoded in training",
    ),
    "max_initialization_time": Rule(
        step_times.max_initialization_time,
        {"threshold": 20.0},
        "frozen layers run once per image: use a GPU, smaller images (--image-size) or --feature-cache off; weights"
        " come faster from a channel than from the network",
        "information",
    ),
    "step_outlier": Rule(
        step_times.step_outlier,
        {"stddev": 3.0, "n_outliers": 10},
        "look at what happens at these times in the report: waits for data, disks, other work on the machine",
        "information",
    ),
}
DEFAULTS: dict[str, Parameters] = {name: rule.defaults for name, rule in RULES.items()}


def evaluate(out: Path, parameters: Mapping[str, Parameters] | None = None, *, final: bool = False) -> list[Finding]:
    """Return the findings of all rules for the job in `out`; `parameters` {rule: {parameter: value}} over DEFAULTS."""
    context = Context(store.job(out), store.system(out), store.timeline(out))
    return findings.evaluate(RULES, "profiler", context, parameters or {}, final=final)
