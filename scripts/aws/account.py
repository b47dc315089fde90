"""The account: clients of its services, and who is calling. AWS_ENDPOINT_URL leads elsewhere, as in AWS's own tools."""

import functools
import threading
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from scripts.aws.errors import CloudError

if TYPE_CHECKING:
    from botocore.session import Session  # takes a fifth of a second, for which --help need not wait

# Throttled and broken calls are tried again with growing pauses, some 20 s in all.
CONFIG: dict[str, Any] = {
    "retries": {"mode": "standard", "max_attempts": 8},
    "connect_timeout": 10,
    "read_timeout": 60,
    "max_pool_connections": 32,
    "user_agent_extra": "byoc-image-classifier",
}
# An inference is asked for once: whoever waited for its answer in vain does not know whether it was computed, and what
# has hung for a minute would be computed nine times. The platform itself gives up after 60 s.
ONCE: dict[str, Any] = {"retries": {"mode": "standard", "total_max_attempts": 1}, "read_timeout": 65}


@dataclass(frozen=True)
class Identity:
    account: str
    arn: str

    @property
    def partition(self) -> str:
        return self.arn.split(":")[1]


def check_region(region: str) -> None:
    """Raises CloudError for one that there is not; asked, its services would look like a network that is down."""
    known = _regions()
    if region in known:
        return
    import boto3

    close = get_close_matches(region, known, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else "expected one such as eu-central-1"
    hint = f"{hint} (--allow-unknown asks all the same)"
    raise CloudError(f"there is no region {region}, as far as boto3 {boto3.__version__} knows: {hint}", 2)


@functools.cache
def _regions() -> tuple[str, ...]:
    """All of them, from the file by which botocore itself finds out addresses."""
    partitions = loader().load_data("partitions")["partitions"]
    return tuple(sorted(name for partition in partitions for name in partition["regions"]))


@functools.cache
def loader() -> Any:
    """Botocore's models of the services, parsed once per process: a loader of its own costs each session 0.2 s."""
    import botocore.session

    return botocore.session.Session().get_component("data_loader")


def core_session() -> "Session":
    import botocore.session

    core = botocore.session.Session()
    core.register_component("data_loader", loader())
    return core


class Aws:
    """Clients are made when first asked for, and may be used by several threads."""

    def __init__(self, region: str, *, allow_unknown: bool = False) -> None:
        """Raises CloudError where there is no such region, unless regions and words may be newer than boto3 here."""
        if not allow_unknown:
            check_region(region)
        import boto3

        self.region, self.allow_unknown = region, allow_unknown
        self.session = boto3.Session(botocore_session=core_session(), region_name=region)
        self._lock = threading.Lock()
        self._clients: dict[str, Any] = {}

    def client(self, service: str) -> Any:
        with self._lock:
            if service not in self._clients:
                from botocore.config import Config

                config = CONFIG | (ONCE if service == "sagemaker-runtime" else {})
                self._clients[service] = self.session.client(service, config=Config(**config))
            return self._clients[service]

    @functools.cached_property
    def identity(self) -> Identity:
        answer = self.client("sts").get_caller_identity()
        return Identity(answer["Account"], answer["Arn"])
