"""Requests are held against the service's model before they are shown or sent."""

import json
from typing import Any

import pytest

from scripts.aws.errors import CloudError
from scripts.aws.requests import Request, check, show

ROLE = "arn:aws:iam::123456789012:role/byoc"


def config(**variant: Any) -> Request:
    usual = {"VariantName": "main", "ModelName": "m", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}
    request = {"EndpointConfigName": "c", "ProductionVariants": [usual | variant]}
    return Request("sagemaker", "CreateEndpointConfig", request)


def test_a_good_request_is_shown_as_json() -> None:
    upload = Request("s3", "PutObject", {"Bucket": "bucket", "Key": "a", "Body": "a.jpg"})
    shown = json.loads(show([config(), upload]))
    assert [list(one) for one in shown] == [["service", "operation", "request"]] * 2
    assert shown[0]["request"] == config().request
    assert shown[1] == {"service": "s3", "operation": "PutObject", "request": upload.request}
    assert show([]) == "[]"


def test_words_may_be_newer_than_the_client() -> None:
    check(config(InstanceType="ml.m99.large"), allow_unknown=True)
    assert "ml.m99.large" in show([config(InstanceType="ml.m99.large")], allow_unknown=True)
    with pytest.raises(CloudError, match="--allow-unknown sends it all the same"):
        check(config(InstanceType="ml.m99.large"))
    # Only words: whatever else is wrong stays wrong.
    with pytest.raises(CloudError, match="VolumeSizeInGB has value 513"):
        check(config(InstanceType="ml.m99.large", VolumeSizeInGB=513), allow_unknown=True)


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (config(Nonsense=1), 'Unknown parameter in ProductionVariants[0]: "Nonsense"'),
        (config(InitialInstanceCount="1"), "Invalid type for parameter"),
        (config(InitialInstanceCount=-1), "valid min value"),
        (config(InstanceType="ml.m5.lagre"), "'ml.m5.lagre': did you mean ml.m5.large"),
        (config(VariantName="a_b"), "ProductionVariants[0].VariantName has value 'a_b': expected"),
        (config(VariantName="a" * 64), "VariantName has length 64: expected at most 63"),
        (config(VolumeSizeInGB=513), "VolumeSizeInGB has value 513: expected at most 512"),
        (Request("sagemaker", "CreateEndpoint", {"EndpointName": "e"}), "EndpointConfigName"),
    ],
)
def test_what_the_service_would_refuse_is_refused_here(request_: Request, message: str) -> None:
    with pytest.raises(CloudError) as error:
        check(request_)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
