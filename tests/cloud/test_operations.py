"""deploy.py's alarms, dashboard, schedules, budget, capture and shadow: requests, and their life on moto."""

import json
import re
from typing import Any

import boto3
import pytest

from scripts import cleanup, deploy
from scripts.endpoints import model_data
from tests.cloud.answers import error, give
from tests.cloud.conftest import ACCOUNT, REGION, Call
from tests.cloud.flaky_aws import FlakyAws
from tests.cloud.test_deploy import BUCKET, CALL, IMAGE, OFFLINE, PROJECT, made
from tests.cloud.test_deploy import MODEL as ARTIFACT
from tests.cloud.test_modes import ANSWERS, ONE, VARIANT
from tests.cloud.test_modes import account as account
from tests.cloud.test_modes import fast as fast
from tests.conftest import Patch
from tests.documents import ROOT

TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:byoc-alarms"
OF_ENDPOINT = [PROJECT, {"Key": "byoc-endpoint", "Value": "byoc-dogs"}]
NAMES = ["byoc-dogs-5xx", "byoc-dogs-latency", "byoc-dogs-disk"]


def dry(call: Call, *arguments: str) -> list[dict[str, Any]]:
    """The requests of a dry run; each was checked against the service's model."""
    found: list[dict[str, Any]] = call(deploy, *ONE, *arguments, "--dry-run").json
    return found


def of(requests: list[dict[str, Any]], operation: str) -> list[dict[str, Any]]:
    return [one["request"] for one in requests if one["operation"] == operation]


# Alarms and the dashboard


def test_requests_of_alarms(call: Call) -> None:
    failures, latency, disk = of(dry(call, "--alarms", "500", "--alarm-topic", TOPIC), "PutMetricAlarm")
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
    assert (disk["Namespace"], disk["MetricName"], disk["Threshold"]) == (
        "/aws/sagemaker/Endpoints", "DiskUtilization", 80.0,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (("--serverless", "2048"), ["byoc-dogs-5xx", "byoc-dogs-latency"]),
        (("--async", ANSWERS), ["byoc-dogs-5xx", "byoc-dogs-disk"]),
    ],
)
def test_a_mode_has_the_alarms_whose_metrics_mean_something(
    flags: tuple[str, ...], expected: list[str], call: Call
) -> None:
    assert [one["AlarmName"] for one in of(dry(call, *flags, "--alarms"), "PutMetricAlarm")] == expected


@pytest.mark.parametrize(
    ("flags", "count", "variants"),
    [((), 8, {"AllTraffic"}), (("--serverless", "2048"), 5, {"AllTraffic"}),
     (("--shadow", ARTIFACT), 8, {"AllTraffic", "Shadow"})],
)  # fmt: skip
def test_the_dashboard(flags: tuple[str, ...], count: int, variants: set[str], call: Call) -> None:
    (request,) = of(dry(call, "--dashboard", *flags), "PutDashboard")
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


def in_cloudwatch(session: boto3.Session) -> tuple[list[str], list[str]]:
    """The names of alarms and dashboards."""
    watch = session.client("cloudwatch")
    return (
        [one["AlarmName"] for one in watch.describe_alarms()["MetricAlarms"]],
        [one["DashboardName"] for one in watch.list_dashboards()["DashboardEntries"]],
    )


def fire(session: boto3.Session, name: str) -> None:
    session.client("cloudwatch").set_alarm_state(AlarmName=name, StateValue="ALARM", StateReason="test")


def test_alarms_and_dashboard_from_their_making_to_their_end(
    account: boto3.Session, flaky: FlakyAws, call: Call, monkeypatch: Patch
) -> None:
    ended = call(deploy, *CALL, "--alarms", "--dashboard", "--json")
    assert ended.json["alarms"] == NAMES
    assert f"#dashboards/dashboard/byoc-dogs-{REGION}" in ended.err
    assert in_cloudwatch(account) == (NAMES, [f"byoc-dogs-{REGION}"])

    # An update keeps them, and rolls back by those that do not fire already.
    sent: list[list[str]] = []
    original = boto3.Session.client

    def spy(*arguments: Any, **more: Any) -> Any:
        client = original(*arguments, **more)

        def note(params: dict[str, Any], **_: Any) -> None:
            rollback = json.loads(params["body"])["DeploymentConfig"]["AutoRollbackConfiguration"]
            sent.append([one["AlarmName"] for one in rollback["Alarms"]])

        client.meta.events.register("before-call.sagemaker.UpdateEndpoint", note)
        return client

    monkeypatch.setattr(boto3.Session, "client", spy)
    assert call(deploy, *CALL, "--update", "--strategy", "canary", "--alarm", "own").code == 0
    fire(account, "byoc-dogs-5xx")
    ended = call(deploy, *CALL, "--update")
    assert (ended.code, sent) == (0, [["own", *NAMES], ["byoc-dogs-latency", "byoc-dogs-disk"]])
    assert "byoc-dogs-5xx is firing already, and so cannot guard this update" in ended.err
    assert in_cloudwatch(account) == (NAMES, [f"byoc-dogs-{REGION}"])

    # Those of others stay.
    watch = account.client("cloudwatch")
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


def test_alarms_of_an_endpoint_that_is_gone_are_removed_by_its_name(account: boto3.Session, call: Call) -> None:
    assert call(deploy, *CALL, "--alarms").code == 0
    account.client("sagemaker").delete_endpoint(EndpointName="byoc-dogs")
    assert call(cleanup, "byoc-dogs", "--yes").code == 0
    assert in_cloudwatch(account) == ([], [])


def test_alarms_that_may_not_be_made_leave_the_endpoint_and_say_how_to_go_on(
    account: boto3.Session, monkeypatch: Patch, call: Call
) -> None:
    with monkeypatch.context() as patch:
        give(patch, "PutMetricAlarm", error("AccessDenied", "not authorized"))
        ended = call(deploy, *CALL, "--alarms")
    assert (ended.code, f"--attach byoc-dogs --alarms --dashboard --region {REGION}" in ended.last) == (1, True)
    assert made(account)["endpoints"] == ["byoc-dogs"]
    assert call(deploy, "--attach", "byoc-dogs", "--alarms").code == 0
    assert in_cloudwatch(account)[0] == NAMES


def test_who_may_not_see_alarms_can_still_remove_an_endpoint(
    account: boto3.Session, monkeypatch: Patch, call: Call
) -> None:
    assert call(deploy, *CALL).code == 0
    give(monkeypatch, "DescribeAlarms", error("AccessDenied", "not authorized"))
    ended = call(cleanup, "byoc-dogs", "--yes")
    assert (ended.code, "alarms, dashboards cannot be seen" in ended.err) == (0, True)
    assert made(account)["endpoints"] == []


def test_a_creation_that_fails_leaves_no_alarms(account: boto3.Session, flaky: FlakyAws, call: Call) -> None:
    flaky.slow(1, "no capacity")
    assert call(deploy, *CALL, "--alarms", "--dashboard").code == 1
    assert in_cloudwatch(account) == ([], [])


# A schedule


MORNING, EVENING = "cron(0 8 ? * MON-FRI *)", "cron(0 19 ? * MON-FRI *)"


def scheduled(session: boto3.Session) -> dict[str, tuple[int, int]]:
    found = session.client("application-autoscaling").describe_scheduled_actions(ServiceNamespace="sagemaker")
    return {
        one["Schedule"]: (one["ScalableTargetAction"]["MinCapacity"], one["ScalableTargetAction"]["MaxCapacity"])
        for one in found["ScheduledActions"]
    }


def test_requests_of_a_schedule(call: Call) -> None:
    flags = ("--max-instances", "4", "--schedule", f"{MORNING}=2,6", "--schedule", f"{EVENING}=1,2")
    first, second = of(dry(call, *flags, "--timezone", "Europe/Berlin"), "PutScheduledAction")
    assert first == {
        **VARIANT,
        "ScheduledActionName": "byoc-schedule-1",
        "Schedule": MORNING,
        "Timezone": "Europe/Berlin",
        "ScalableTargetAction": {"MinCapacity": 2, "MaxCapacity": 6},
    }
    assert (second["ScheduledActionName"], second["Schedule"]) == ("byoc-schedule-2", EVENING)
    # At night to zero: what the way back needs is there too.
    night = dry(call, "--async", ANSWERS, "--min-instances", "1", *flags[:2], "--schedule", f"{EVENING}=0,0")
    assert [one["AlarmName"] for one in of(night, "PutMetricAlarm")] == ["byoc-dogs-has-backlog"]


def test_a_schedule_stays_until_there_is_a_new_one_or_the_endpoint_goes(
    account: boto3.Session, flaky: FlakyAws, call: Call
) -> None:
    flags = ("--max-instances", "4", "--schedule", f"{MORNING}=2,6", "--schedule", f"{EVENING}=1,2")
    both = {MORNING: (2, 6), EVENING: (1, 2)}
    assert "autoscaling from 1 to 4 instances, with schedules: 2" in call(deploy, *CALL, *flags).err
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
    assert f"--max-usd-per-day {limit}: this may cost {usd} USD, so nothing was made" in ended.last
    assert call(deploy, *ONE, *flags, "--dry-run", "--max-usd-per-day", str(float(usd) + 0.01)).code == 0


def test_an_unknown_price_is_no_promise(call: Call) -> None:
    flags = ("--instance-type", "ml.c6i.large", "--max-usd-per-day", "100")
    ended = call(deploy, *ONE, *flags, "--dry-run")
    assert (ended.code, "the price of 1 x ml.c6i.large, 24 h is not known here" in ended.last) == (2, True)


def test_nothing_is_made_over_the_budget_and_an_update_counts_what_stays(account: boto3.Session, call: Call) -> None:
    assert call(deploy, *CALL, "--max-usd-per-day", "1").code == 2
    assert made(account) == {"models": [], "configurations": [], "endpoints": []}
    assert call(deploy, *CALL, "--max-instances", "4", "--max-usd-per-day", "17").code == 0
    ended = call(deploy, *CALL, "--update", "--max-usd-per-day", "10")
    assert (ended.code, "this may cost 16.56 USD" in ended.last) == (2, True)
    assert len(made(account)["configurations"]) == 1


# Capture


def test_requests_of_capture(call: Call) -> None:
    flags = ("--capture", "20", "--output-kms-key", "1234abcd")
    (request,) = of(dry(call, *flags), "CreateEndpointConfig")
    assert request["DataCaptureConfig"] == {
        "EnableCapture": True,
        "InitialSamplingPercentage": 20,
        "DestinationS3Uri": f"s3://{BUCKET}/byoc/captured",
        "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
        "CaptureContentTypeHeader": {"JsonContentTypes": ["application/json"]},
        "KmsKeyId": "1234abcd",
    }
    (request,) = of(dry(call, "--capture", "1", "--capture-to", "s3://b-b/c/"), "CreateEndpointConfig")
    assert request["DataCaptureConfig"]["DestinationS3Uri"] == "s3://b-b/c"


def test_an_update_without_capture_says_that_it_ends(account: boto3.Session, call: Call) -> None:
    def captures() -> bool:
        client = account.client("sagemaker")
        name = client.describe_endpoint(EndpointName="byoc-dogs")["EndpointConfigName"]
        return bool(client.describe_endpoint_config(EndpointConfigName=name).get("DataCaptureConfig"))

    assert call(deploy, *CALL, "--capture", "20").code == 0
    assert "ends that" not in call(deploy, *CALL, "--capture", "30", "--update").err
    assert captures()
    said = "byoc-dogs was deployed with --capture: this update without it ends that"
    assert said in call(deploy, *CALL, "--update").err
    assert not captures()


# A shadow


def test_requests_of_a_shadow(call: Call) -> None:
    requests = dry(call, "--shadow", "job-2", "--instance-count", "2", "--capture", "100")
    live, shadow = of(requests, "CreateModel")
    assert shadow == {
        **live,
        "ModelName": "byoc-dogs-shadow",
        "PrimaryContainer": {"Image": IMAGE, "ModelDataUrl": f"s3://{BUCKET}/byoc/job-2/output/model.tar.gz"},
    }
    (configuration,) = of(requests, "CreateEndpointConfig")
    (variant,) = configuration["ProductionVariants"]
    assert configuration["ShadowProductionVariants"] == [
        {**variant, "VariantName": "Shadow", "ModelName": "byoc-dogs-shadow", "InitialInstanceCount": 1}
    ]


def test_a_shadow_is_made_and_goes_with_its_endpoint(account: boto3.Session, call: Call) -> None:
    assert call(deploy, *CALL, "--shadow", f"s3://{BUCKET}/byoc/nothing/model.tar.gz").code == 1
    assert made(account)["models"] == []
    assert "2 x ml.m5.large: 0.23 USD an hour" in call(deploy, *CALL, "--shadow", ARTIFACT).err
    assert made(account)["models"] == ["byoc-dogs", "byoc-dogs-shadow"]
    assert call(cleanup, "byoc-dogs", "--yes").code == 0
    assert made(account)["models"] == []


def test_an_update_ends_a_shadow_and_prunes_its_model(account: boto3.Session, monkeypatch: Patch, call: Call) -> None:
    assert call(deploy, *CALL, "--shadow", ARTIFACT).code == 0
    client = account.client("sagemaker")
    # Moto forgets the field.
    found = client.describe_endpoint_config(EndpointConfigName="byoc-dogs")
    shadow = {**found["ProductionVariants"][0], "VariantName": "Shadow", "ModelName": "byoc-dogs-shadow"}
    with monkeypatch.context() as patch:
        give(patch, "DescribeEndpointConfig", {**found, "ShadowProductionVariants": [shadow]})
        give(patch, "ListEndpointConfigs", {"EndpointConfigs": []})
        ended = call(deploy, *CALL, "--update", "--prune", "--json")
    assert "byoc-dogs was deployed with --shadow: this update without it ends that" in ended.err
    assert ended.json["removed"] == ["byoc-dogs", "byoc-dogs", "byoc-dogs-shadow"]


# Flags


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ("--serverless 2048 --capture 10", "--capture: the service captures no data there"),
        ("--serverless 2048 --shadow job-2", "--shadow: the service has no shadow variants there"),
        ("--async s3://b-b/a --shadow job-2", "--shadow: the service has no shadow variants there"),
        ("--capture 101", "'101' must be an integer from 1 to 100"),
        ("--capture-to s3://b-b/c", "--capture-to goes with --capture"),
        (f"--alarm-topic {TOPIC}", "--alarm-topic goes with --alarms"),
        ("--alarms --no-wait", "--no-wait cannot be combined with --alarms"),
        ("--wait --no-wait", "not allowed with argument"),
        ("--shadow job-2 --name byoc-dogs --update --strategy rolling", "the service takes one variant there"),
        ("--schedule x=1,2", "--schedule goes with --max-instances"),
        ("--max-instances 2 --schedule x=1,2", "--schedule has value 'x=1,2': expected 'cron("),
        ("--max-instances 2 --schedule at(2100-01-01T00:00:00)=0,2", "only an endpoint with --async scales to zero"),
        ("--max-instances 2 --schedule at(2100-01-01T00:00:00)=3,2", "MIN 3 is more than MAX 2"),
        ("--timezone UTC", "--timezone goes with --schedule"),
        ("--max-usd-per-day much", "'much' must be a number of 0 or more"),
        ("--local --alarms", "--alarms: that is for an endpoint in SageMaker"),
        ("--register byoc-dogs --capture 5", "--capture: it makes no endpoint"),
    ],
)
def test_what_cannot_be_combined_is_one_line(flags: str, complaint: str, call: Call) -> None:
    arguments = (*OFFLINE, "--model-data", ARTIFACT, *flags.split(" "), *(() if "--local" in flags else ("--dry-run",)))
    ended = call(deploy, *arguments)
    assert (ended.code, complaint in ended.last) == (2, True), ended.err


def test_the_known_variables_are_those_that_the_server_reads() -> None:
    source = (ROOT / "container_serve" / "settings.py").read_text()
    read = set(re.findall(r'"(BYOC_[A-Z_]+)"', source)) - {"BYOC_TARGET"}  # set by the images
    assert set(model_data.VARIABLES) == read


def test_an_unknown_variable_of_the_server_is_said(call: Call) -> None:
    ended = call(deploy, *ONE, "--environment", "BYOC_THREAD=2", "--environment", "MY_OWN=1", "--dry-run")
    warning = "warning: --environment BYOC_THREAD: the server knows no such variable: did you mean BYOC_THREADS?"
    assert [line for line in ended.err.splitlines() if "warning" in line] == [warning]


@pytest.mark.parametrize(
    ("when", "complaint"),
    [
        ("cron(99 8 ? * MON-FRI *)", "MINUTE has value '99': expected 0 to 59"),
        ("cron(0 24 ? * MON-FRI *)", "HOUR has value '24': expected 0 to 23"),
        ("cron(0 8 32 * ? *)", "DAY has value '32': expected 1 to 31, or L for the last one"),
        ("cron(0 8 ? 1,13 MON *)", "MONTH has value '1,13': expected 1 to 12, or JAN to DEC"),
        ("cron(0 8 ? * MON-SUNDAY *)", "WEEKDAY has value 'MON-SUNDAY': expected 1 to 7, or SUN to SAT"),
        ("cron(0 8 ? * 0 *)", "WEEKDAY has value '0'"),
        ("cron(0 8 ? * MON 26)", "YEAR has value '26': expected 1970 to 2199"),
        ("cron(0/0 8 ? * MON *)", "MINUTE has value '0/0'"),
        ("cron(0 8 * * MON *)", "one of DAY and WEEKDAY has to be ?"),
        ("cron(0 8 ? * ? *)", "one of DAY and WEEKDAY has to be ?"),
        ("at(2020-01-01T00:00:00)", "that is in the past"),
        ("at(tomorrow)", "expected at(YYYY-MM-DDThh:mm:ss)"),
        ("rate(0 days)", "expected 'cron("),
        ("rate(2 weeks)", "expected 'cron("),
    ],
)
def test_a_time_that_the_service_would_refuse_is_one_line(when: str, complaint: str, call: Call) -> None:
    schedule = ("--max-instances", "2", "--schedule", f"{when}=1,2")
    ended = call(deploy, *OFFLINE, "--model-data", ARTIFACT, *schedule, "--dry-run")
    assert (ended.code, complaint in ended.last) == (2, True), ended.err


def test_a_time_that_is_given_twice_is_refused(call: Call) -> None:
    both = ("--schedule", f"{MORNING}=2,6", "--schedule", f"{MORNING}=1,2")
    ended = call(deploy, *OFFLINE, "--model-data", ARTIFACT, "--max-instances", "6", *both, "--dry-run")
    assert (ended.code, f"--schedule '{MORNING}' is given twice" in ended.last) == (2, True), ended.err


@pytest.mark.parametrize(
    "when",
    [
        "cron(0/15 8-18 ? * MON-FRI 2026-2030)", "cron(0,30 */2 L * ? *)", "cron(0 08 LW JAN,JUL ? *)",
        "cron(59 23 15W 1-12/3 ? *)", "cron(0 8 ? * 2#1 *)", "cron(0 8 ? * FRIL *)", "rate(5 minutes)", "rate(1 day)",
        "at(2100-12-31T23:59:59)",
    ],
)  # fmt: skip
def test_times_as_the_service_takes_them(when: str, call: Call) -> None:
    (one,) = of(dry(call, "--max-instances", "2", "--schedule", f"{when}=1,2"), "PutScheduledAction")
    assert one["Schedule"] == when
