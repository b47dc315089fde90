"""Instances that are refused, with the reason, and prices that are known or said to be unknown."""

import pytest

from scripts.aws import instances
from scripts.aws.errors import CloudError
from scripts.aws.requests import model

TRAINING, SERVING = (
    model("sagemaker").shape_for(name).enum for name in ("TrainingInstanceType", "ProductionVariantInstanceType")
)


@pytest.mark.parametrize(
    ("instance_type", "reason"),
    [
        ("ml.p3.2xlarge", "compute capability 7.0 (V100); the torch in the image needs 7.5 or more"),
        ("ml.g3.4xlarge", "5.2 (M60)"),
        ("ml.g5g.xlarge", "ARM processor, on which these images do not train"),
        ("ml.p6e-gb200.36xlarge", "ARM processor"),
        ("ml.trn1.2xlarge", "Trainium"),
    ],
)
def test_an_instance_that_cannot_run_the_image_is_refused_with_the_reason(instance_type: str, reason: str) -> None:
    with pytest.raises(CloudError) as caught:
        instances.check(instance_type)
    message = str(caught.value)
    assert reason in message
    assert instance_type in message
    assert "take ml.g4dn.xlarge" in message
    assert caught.value.code == 2


@pytest.mark.parametrize("wrong", ["g4dn.xlarge", "local", "ml.m5", "ml.m5.large.large", ""])
def test_what_is_no_instance_type_is_refused(wrong: str) -> None:
    with pytest.raises(CloudError, match="expected one such as ml"):
        instances.check(wrong)


def test_of_the_services_own_list_only_what_cannot_work_is_refused() -> None:
    refused = set()
    for name in TRAINING:
        try:
            instances.check(name)
        except CloudError:
            refused.add(instances.family(name))
    assert refused == {"p2", "p3", "p3dn", "trn1", "trn1n", "trn2", "p6e-gb200"}
    # Every one with a price exists and can be used.
    assert set(instances.PRICES) <= {*TRAINING, *SERVING}
    for name in instances.PRICES:
        if instances.architecture(name) == "amd64":
            instances.check(name)


def test_a_price_is_told_with_its_region_and_date_and_an_unknown_one_is_not_invented() -> None:
    line = instances.describe("ml.g4dn.xlarge", 2, "us-west-2", spot=True)
    assert line.startswith("2 x ml.g4dn.xlarge: 1.47 USD an hour on demand (us-west-2, 2026-09, https://")
    assert line.endswith("spot costs up to 90 % less")
    assert "eu-central-1 may differ" in instances.describe("ml.g4dn.xlarge", 1, "eu-central-1")
    unknown = instances.describe("ml.p5.48xlarge", 1, "us-west-2")
    assert ("not known" in unknown, "USD" in unknown) == (True, False)
    assert instances.price("ml.p5.48xlarge", "us-west-2").cost(3600) is None
    assert instances.price("ml.m5.xlarge", "us-west-2").cost(1800, 2) == pytest.approx(0.23)


def test_several_types_cost_what_the_dearest_does() -> None:
    assert instances.price("ml.c5.large,ml.m5.large", "us-west-2").hourly == 0.115
    assert instances.price("ml.m5.large,ml.p5.48xlarge", "us-west-2").hourly is None
    line = instances.describe("ml.c5.large,ml.m5.large", 2, "us-west-2")
    assert line.startswith("2 x ml.c5.large or ml.m5.large: 0.23 USD an hour")


def test_the_processors_of_an_instance() -> None:
    families = {instances.family(kind): kind for kind in SERVING}
    arm = {name for name, kind in families.items() if instances.architecture(kind) == "arm64"}
    assert arm == {
        "c6g", "c6gd", "c6gn", "m6g", "m6gd", "r6g", "r6gd", "c7g", "r7gd", "c8g", "m8g", "r8g", "p6e-gb200",
    }  # fmt: skip


# Those with local disks among all that the service names, by AWS's page "Instance store volumes".
WITH_DISKS = {
    "c5d", "c6gd", "g4dn", "g5", "g6", "g6e", "g7", "g7e", "m5d", "m6gd", "p3dn", "p4d", "p4de", "p5", "p5e", "p5en",
    "p6-b200", "p6-b300", "r5d", "r6gd", "r7gd",
}  # fmt: skip


def test_a_volume_key_is_for_instances_without_disks_of_their_own() -> None:
    families = {instances.family(kind) for kind in (*TRAINING, *SERVING)}
    usable = {kind for kind in families if kind not in instances.REFUSED} | WITH_DISKS
    assert {kind for kind in usable if not instances.takes_volume_key(f"ml.{kind}.xlarge")} == WITH_DISKS
    for newer in ("m6id", "c6id", "r6idn", "m5dn", "c7gd", "x2iedn", "m8gd"):
        assert not instances.takes_volume_key(f"ml.{newer}.xlarge")
    for other in ("c7i-flex", "m8i", "r5", "c6in"):
        assert instances.takes_volume_key(f"ml.{other}.xlarge")
