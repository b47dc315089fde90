"""deploy.py's alarms, dashboard, schedules, budget, capture and shadow: requests, and their life on moto."""

import json
import re
from typing import Any

import pytest
from boto3 import Session

from scripts import cleanup, deploy
from scripts.endpoints import model_data
from tests.cloud.answers import error, give
from tests.cloud.conftest import ACCOUNT, BUCKET, CALL, PROJECT, REGION, SERVE_IMAGE, Call
from tests.cloud.conftest import MODEL as ARTIFACT
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.resources import NOTHING, configuration, there
from tests.cloud.test_modes import ANSWERS, ONE, VARIANT
from tests.conftest import Patch
from tests.documents import ROOT

TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:byoc-alarms"
OF_ENDPOINT = [PROJECT, {"Key": "byoc-endpoint", "Value": "byoc-dogs"}]
NAMES = ["byoc-dogs-5xx", "byoc-dogs-latency", "byoc-dogs-disk"]
MORNING, EVENING = "cron(0 8 ? * MON-FRI *)", "cron(0 19 ? * MON-FRI *)"
SCHEDULE = ("--max-instances", "4", "--schedule", f"{MORNING}=2,6", "--schedule", f"{EVENING}=1,2")


def dry(call: Call, operation: str, *arguments: str) -> list[dict[str, Any]]:
    """The requests of this operation in a dry run; each was checked against the service's model."""
    shown = call(deploy, *ONE, *arguments, "--dry-run").json
    return [one["request"] for one in shown if one["operation"] == operation]


# Alarms and the dashboard


def test_requests_of_alarms(call: Call) -> None:
    failures, latency, disk = dry(call, "PutMetricAlarm", "--alarms", "500", "--alarm-topic", TOPIC)
    assert failures == {
        "AlarmName": "byoc-dogs-5xx",
        "AlarmDescription": "byoc-dogs: over 1 % of requests fail",
        "AlarmActions": [TOPIC],
        "Namespace": "AWS/SageMaker",
        "MetricName": "Invocation5XXErrors",
        "Dimensions": [
            {"Name": "EndpointName", "Value": "byoc-dogs"},
            {"Name": "VariantName", "Value": "AllTraffic"},
        ],
        "Statistic": "Average",
        "Period": 60,
        "EvaluationPeriods": 5,
        "DatapointsToAlarm": 3,
        "Threshold": 0.01,
        "ComparisonOperator": "GreaterThanThreshold",
        "TreatMissingData": "notBreaching",
        "Tags": OF_ENDPOINT,
    }
    assert (latency["ExtendedStatistic"], latency["Threshold"]) == ("p90", 500_000.0)  # microseconds
    found = (disk["Namespace"], disk["MetricName"], disk["Threshold"])
    assert found == ("/aws/sagemaker/Endpoints", "DiskUtilization", 80.0)
    # A mode has those whose metrics mean something.
    for mode, names in ((("--serverless", "2048"), NAMES[:2]), (("--async", ANSWERS), NAMES[::2])):
        assert [one["AlarmName"] for one in dry(call, "PutMetricAlarm", *mode, "--alarms")] == names


@pytest.mark.parametrize(
    ("flags", "count", "variants"),
    [((), 8, {"AllTraffic"}), (("--serverless", "2048"), 5, {"AllTraffic"}),
     (("--shadow", ARTIFACT), 8, {"AllTraffic", "Shadow"})],
)  # fmt: skip
def test_the_dashboard(flags: tuple[str, ...], count: int, variants: set[str], call: Call) -> None:
    (request,) = dry(call, "PutDashboard", "--dashboard", *flags)
    assert (request["DashboardName"], request["Tags"]) == (f"byoc-dogs-{REGION}", OF_ENDPOINT)
    widgets = json.loads(request["DashboardBody"])["widgets"]
    assert len({(one["x"], one["y"]) for one in widgets}) == len(widgets) == count
    assert all(one["x"] + one["width"] <= 24 for one in widgets)
    lines = [line for one in widgets for line in one["properties"]["metrics"]]
    assert {line[5] for line in lines} == variants
    assert {line[3] for line in lines} == {"byoc-dogs"}
    assert len({json.dumps(line) for line in lines}) == len(lines)
    named = {line[1] for line in lines}
    assert {"Invocations", "ModelLatency", "Invocation5XXErrors", "MemoryUtilization"} <= named
    assert ("CPUUtilization" in named) == ("--serverless" not in flags)


def in_cloudwatch(session: Session) -> tuple[list[str], list[str]]:
    """The names of alarms and dashboards."""
    watch = session.client("cloudwatch")
    return (
        [one["AlarmName"] for one in watch.describe_alarms()["MetricAlarms"]],
        [one["DashboardName"] for one in watch.list_dashboards()["DashboardEntries"]],
    )


def test_alarms_and_dashboard_from_their_making_to_their_end(account: Session, flaky: FlakyAws, call: Call) -> None:
    ended = call(deploy, *CALL, "--alarms", "--dashboard", "--json").says(f"#dashboards/dashboard/byoc-dogs-{REGION}")
    assert ended.json["alarms"] == NAMES
    assert in_cloudwatch(account) == (NAMES, [f"byoc-dogs-{REGION}"])

    # An update keeps them, and rolls back by those that do not fire already.
    def rolls_back_by() -> list[str]:
        rollback = flaky.requests["UpdateEndpoint"]["DeploymentConfig"]["AutoRollbackConfiguration"]
        return [one["AlarmName"] for one in rollback["Alarms"]]

    assert call(deploy, *CALL, "--update", "--strategy", "canary", "--alarm", "own").code == 0
    assert rolls_back_by() == ["own", *NAMES]
    watch = account.client("cloudwatch")
    watch.set_alarm_state(AlarmName="byoc-dogs-5xx", StateValue="ALARM", StateReason="test")
    call(deploy, *CALL, "--update").says("byoc-dogs-5xx is firing already, and so cannot guard this update")
    assert rolls_back_by() == ["byoc-dogs-latency", "byoc-dogs-disk"]
    assert in_cloudwatch(account) == (NAMES, [f"byoc-dogs-{REGION}"])

    # Those of others stay.
    watch.put_metric_alarm(
        AlarmName="byoc-of-others", MetricName="a", Namespace="b", Statistic="Sum", Period=60, EvaluationPeriods=1,
        Threshold=1.0, ComparisonOperator="GreaterThanThreshold",
    )  # fmt: skip
    watch.put_dashboard(DashboardName="byoc-of-others", DashboardBody='{"widgets": []}')
    ended = call(cleanup, "--json")
    listed = [(one["kind"], one["name"], one["status"]) for one in ended.json["found"]]
    assert ("alarm", "byoc-dogs-5xx", "ALARM") in listed
    assert ("dashboard", f"byoc-dogs-{REGION}", "") in listed
    assert "alarm byoc-of-others has no tag byoc-project" in ended.err
    assert call(cleanup, "byoc-dogs", "--yes").code == 0
    assert in_cloudwatch(account) == (["byoc-of-others"], ["byoc-of-others"])


def test_alarms_that_may_not_be_made_leave_the_endpoint_and_say_how_to_go_on(
    account: Session, monkeypatch: Patch, call: Call
) -> None:
    with monkeypatch.context() as patch:
        give(patch, "PutMetricAlarm", error("AccessDenied", "not authorized"))
        ended = call(deploy, *CALL, "--alarms")
    ended.ends(1, f"--attach byoc-dogs --alarms --dashboard --region {REGION}")
    assert there(account)["endpoints"] == ["byoc-dogs"]
    assert call(deploy, "--attach", "byoc-dogs", "--alarms").code == 0
    assert in_cloudwatch(account)[0] == NAMES
    # Those of an endpoint that is gone are removed by its name.
    account.client("sagemaker").delete_endpoint(EndpointName="byoc-dogs")
    assert call(cleanup, "byoc-dogs", "--yes").code == 0
    assert in_cloudwatch(account) == ([], [])


def test_who_may_not_see_alarms_can_still_remove_an_endpoint(account: Session, monkeypatch: Patch, call: Call) -> None:
    assert call(deploy, *CALL).code == 0
    give(monkeypatch, "DescribeAlarms", error("AccessDenied", "not authorized"))
    call(cleanup, "byoc-dogs", "--yes").says("alarms, dashboards cannot be seen")
    assert there(account)["endpoints"] == []


def test_a_creation_that_fails_leaves_no_alarms(account: Session, flaky: FlakyAws, call: Call) -> None:
    flaky.slow(1, "no capacity")
    assert call(deploy, *CALL, "--alarms", "--dashboard").code == 1
    assert in_cloudwatch(account) == ([], [])


# A schedule


def scheduled(session: Session) -> dict[str, tuple[int, int]]:
    found = session.client("application-autoscaling").describe_scheduled_actions(ServiceNamespace="sagemaker")
    return {
        one["Schedule"]: (one["ScalableTargetAction"]["MinCapacity"], one["ScalableTargetAction"]["MaxCapacity"])
        for one in found["ScheduledActions"]
    }


def test_requests_of_a_schedule(call: Call) -> None:
    first, second = dry(call, "PutScheduledAction", *SCHEDULE, "--timezone", "Europe/Berlin")
    assert first == {
        **VARIANT,
        "ScheduledActionName": "byoc-schedule-1",
        "Schedule": MORNING,
        "Timezone": "Europe/Berlin",
        "ScalableTargetAction": {"MinCapacity": 2, "MaxCapacity": 6},
    }
    assert (second["ScheduledActionName"], second["Schedule"]) == ("byoc-schedule-2", EVENING)
    # At night to zero: what the way back needs is there too.
    night = ("--async", ANSWERS, "--min-instances", "1", *SCHEDULE[:2], "--schedule", f"{EVENING}=0,0")
    assert [one["AlarmName"] for one in dry(call, "PutMetricAlarm", *night)] == ["byoc-dogs-has-backlog"]


def test_a_schedule_stays_until_there_is_a_new_one_or_the_endpoint_goes(
    account: Session, flaky: FlakyAws, call: Call
) -> None:
    both = {MORNING: (2, 6), EVENING: (1, 2)}
    assert "autoscaling from 1 to 4 instances, with schedules: 2" in call(deploy, *CALL, *SCHEDULE).err
    assert scheduled(account) == both
    during: list[dict[str, tuple[int, int]]] = []
    flaky.before["UpdateEndpoint"] = lambda: during.append(scheduled(account))
    assert call(deploy, *CALL, "--update", "--instance-type", "ml.c5.xlarge").code == 0
    assert during == [{}]
    assert scheduled(account) == both
    # Other bounds leave it, too.
    assert call(deploy, *CALL, "--update", "--instance-type", "ml.m5.large", "--max-instances", "3").code == 0
    assert scheduled(account) == both
    assert call(deploy, "--attach", "byoc-dogs", "--max-instances", "3", "--schedule", f"{MORNING}=1,3").code == 0
    assert scheduled(account) == {MORNING: (1, 3)}
    assert call(cleanup, "byoc-dogs", "--yes").code == 0
    assert scheduled(account) == {}


# A budget


@pytest.mark.parametrize(
    ("flags", "limit", "words", "usd"),
    [
        ((), "4.13", "1 x ml.m5.large, 24 h", "4.14"),
        (("--instance-count", "3"), "12", "3 x ml.m5.large, 24 h", "12.42"),
        (("--max-instances", "4"), "16", "1 to 4 x ml.m5.large, 24 h", "16.56"),
        (("--max-instances", "4", "--schedule", f"{MORNING}=2,6"), "24", "1 to 6 x ml.m5.large, 24 h", "24.84"),
        (("--shadow", ARTIFACT), "8", "1 x ml.m5.large, 24 h, shadow", "8.28"),
        (("--serverless", "2048", "--provisioned", "2"), "6", "2 provisioned (serverless; requests are", "6.91"),
    ],
)
def test_what_may_cost_more_is_refused(flags: tuple[str, ...], limit: str, words: str, usd: str, call: Call) -> None:
    ended = call(deploy, *ONE, *flags, "--dry-run", "--max-usd-per-day", limit)
    assert (ended.code, ended.out, words in ended.err) == (2, "", True)
    assert f"--max-usd-per-day {limit}: this may cost {usd} USD: ask for less" in ended.last
    assert call(deploy, *ONE, *flags, "--dry-run", "--max-usd-per-day", str(float(usd) + 0.01)).code == 0


def test_nothing_is_made_over_the_budget_and_an_update_counts_what_stays(account: Session, call: Call) -> None:
    assert call(deploy, *CALL, "--max-usd-per-day", "1").code == 2
    assert there(account) == NOTHING
    assert call(deploy, *CALL, "--max-instances", "4", "--max-usd-per-day", "17").code == 0
    call(deploy, *CALL, "--update", "--max-usd-per-day", "10").ends(2, "this may cost 16.56 USD")
    assert len(there(account)["configurations"]) == 1


# Capture


def test_requests_of_capture(call: Call) -> None:
    flags = ("--capture", "20", "--output-kms-key", "1234abcd")
    (request,) = dry(call, "CreateEndpointConfig", *flags)
    assert request["DataCaptureConfig"] == {
        "EnableCapture": True,
        "InitialSamplingPercentage": 20,
        "DestinationS3Uri": f"s3://{BUCKET}/byoc/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        "KmsKeyId": "1234abcd",
    }
    (request,) = dry(call, "CreateEndpointConfig", "--capture", "1", "--capture-to", "s3://b-b/c/")
    assert request["DataCaptureConfig"]["DestinationS3Uri"] == "s3://b-b/c"


def test_an_update_without_capture_says_that_it_ends(account: Session, call: Call) -> None:
    assert call(deploy, *CALL, "--capture", "20").code == 0
    assert "ends that" not in call(deploy, *CALL, "--capture", "30", "--update").err
    assert configuration(account).get("DataCaptureConfig")
    said = "byoc-dogs was deployed with --capture: this update without it ends that"
    assert said in call(deploy, *CALL, "--update").err
    assert not configuration(account).get("DataCaptureConfig")


# A shadow


def test_requests_of_a_shadow(call: Call) -> None:
    flags = ("--shadow", "job-2", "--instance-count", "2", "--capture", "100")
    live, shadow = dry(call, "CreateModel", *flags)
    assert shadow == {
        **live,
        "ModelName": "byoc-dogs-shadow",
        "PrimaryContainer": {"Image": SERVE_IMAGE, "ModelDataUrl": f"s3://{BUCKET}/byoc/job-2/output/model.tar.gz"},
    }
    (request,) = dry(call, "CreateEndpointConfig", *flags)
    (variant,) = request["ProductionVariants"]
    assert request["ShadowProductionVariants"] == [
        {**variant, "VariantName": "Shadow", "ModelName": "byoc-dogs-shadow", "InitialInstanceCount": 1}
    ]


def test_a_shadow_is_made_and_goes_with_its_endpoint(account: Session, call: Call) -> None:
    assert call(deploy, *CALL, "--shadow", f"s3://{BUCKET}/byoc/nothing/model.tar.gz").code == 1
    assert there(account)["models"] == []
    assert "2 x ml.m5.large: 0.23 USD an hour" in call(deploy, *CALL, "--shadow", ARTIFACT).err
    assert there(account)["models"] == ["byoc-dogs", "byoc-dogs-shadow"]
    assert call(cleanup, "byoc-dogs", "--yes").code == 0
    assert there(account)["models"] == []


def test_an_update_ends_a_shadow_and_prunes_its_model(account: Session, monkeypatch: Patch, call: Call) -> None:
    assert call(deploy, *CALL, "--shadow", ARTIFACT).code == 0
    found = configuration(account)  # moto forgets the field
    shadow = {**found["ProductionVariants"][0], "VariantName": "Shadow", "ModelName": "byoc-dogs-shadow"}
    with monkeypatch.context() as patch:
        give(patch, "DescribeEndpointConfig", {**found, "ShadowProductionVariants": [shadow]})
        give(patch, "ListEndpointConfigs", {"EndpointConfigs": []})
        ended = call(deploy, *CALL, "--update", "--prune", "--json")
    assert "byoc-dogs was deployed with --shadow: this update without it ends that" in ended.err
    assert ended.json["removed"] == ["byoc-dogs", "byoc-dogs", "byoc-dogs-shadow"]


# What is known of flags


def test_the_known_variables_are_those_that_the_server_reads(call: Call) -> None:
    source = (ROOT / "container_serve" / "settings.py").read_text()
    read = set(re.findall(r'"(BYOC_[A-Z_]+)"', source)) - {"BYOC_TARGET"}  # set by the images
    assert set(model_data.VARIABLES) == read
    ended = call(deploy, *ONE, "--environment", "BYOC_THREAD=2", "--environment", "MY_OWN=1", "--dry-run")
    warning = "warning: --environment BYOC_THREAD: the server knows no such variable: did you mean BYOC_THREADS?"
    assert [line for line in ended.err.splitlines() if "warning" in line] == [warning]


@pytest.mark.parametrize(
    "when",
    [
        "cron(0/15 8-18 ? * MON-FRI 2026-2030)", "cron(0,30 */2 L * ? *)", "cron(0 08 LW JAN,JUL ? *)",
        "cron(59 23 15W 1-12/3 ? *)", "cron(0 8 ? * 2#1 *)", "cron(0 8 ? * FRIL *)", "rate(10 minutes)", "rate(1 day)",
        "at(2100-12-31T23:59:59)",
    ],
)  # fmt: skip
def test_times_as_the_service_takes_them(when: str, call: Call) -> None:
    (one,) = dry(call, "PutScheduledAction", "--max-instances", "2", "--schedule", f"{when}=1,2")
    assert one["Schedule"] == when
