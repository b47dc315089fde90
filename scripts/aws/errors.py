"""What went wrong at AWS, where, and what to do, in one line."""

import re

from botocore import exceptions
from botocore.parsers import ResponseParserError

from local_test.errors import LocalError

POLICY = "scripts/iam/scripts.json"  # the permissions that the scripts need


class CloudError(LocalError):
    """Ends a script; `str()` is one line, `code` the exit code."""


_CREDENTIALS = (
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.CredentialRetrievalError,
    exceptions.NoAuthTokenError,
    exceptions.TokenRetrievalError,
    exceptions.SSOError,
)
_UNREACHABLE = (exceptions.ConnectionError, exceptions.HTTPClientError)  # time-outs, proxies and TLS are kinds of them

_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess", "403", "Forbidden"}
_EXPIRED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "InvalidSignatureException",
    "RequestExpired",
    "AuthFailure",
}
_QUOTA = {"ResourceLimitExceeded", "LimitExceededException", "ServiceQuotaExceededException"}
_THROTTLED = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "SlowDown",
}
_REGION = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_TAKEN = {"ResourceInUse", "ResourceInUseException"}
_MISSING = {"ResourceNotFound", "ResourceNotFoundException"}


def explain(error: Exception) -> CloudError:
    """The one line for an exception of botocore's or boto3's."""
    if isinstance(error, CloudError):
        return error
    if isinstance(error, exceptions.ClientError):
        return CloudError(_client_error(error))
    if isinstance(error, exceptions.ProfileNotFound):
        return CloudError(f"{one_line(str(error))}: correct AWS_PROFILE, or run `aws configure --profile NAME`")
    if isinstance(error, exceptions.NoRegionError):
        return CloudError('no region: give --region, set AWS_REGION, or write region = "..." into byoc.toml')
    if isinstance(error, _CREDENTIALS):
        return CloudError(
            f"no usable AWS credentials ({one_line(str(error))}): run `aws configure` or `aws sso login`, or set"
            " AWS_PROFILE"
        )
    if isinstance(error, ResponseParserError):
        return CloudError(
            "what answered is not AWS: a web page, or something else that cannot be read; check HTTPS_PROXY and"
            " AWS_ENDPOINT_URL"
        )
    if isinstance(error, _UNREACHABLE):
        return CloudError(
            f"AWS cannot be reached ({one_line(str(error))}): check the network and HTTPS_PROXY, and that the region"
            " is spelt right if nothing has worked yet"
        )
    return CloudError(one_line(str(error)))


def code_of(error: exceptions.ClientError) -> str:
    """The service's own word for it, such as ResourceInUse."""
    return str(error.response.get("Error", {}).get("Code", ""))


def message_of(error: exceptions.ClientError) -> str:
    return one_line(str(error.response.get("Error", {}).get("Message", "") or error))


def is_denied(error: exceptions.ClientError) -> bool:
    """Whether a permission is missing."""
    return code_of(error) in _DENIED


def is_throttled(error: exceptions.ClientError) -> bool:
    """Tell whether the service refused it for the number of calls alone, and did nothing."""
    return code_of(error) in _THROTTLED


def is_passing(error: Exception) -> bool:
    """Whether it may go away by itself: throttling, a network that is down, an error on the service's side."""
    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return is_throttled(error) or status >= 500
    return isinstance(error, _UNREACHABLE)


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _client_error(error: exceptions.ClientError) -> str:
    code, message, operation = code_of(error), message_of(error), error.operation_name
    said = f"{operation}: {message} ({code})"
    if "assume" in message.lower() and "role" in message.lower():
        return f"{said}: the role's trust policy must let sagemaker.amazonaws.com assume it (scripts/iam/trust.json)"
    if code in _DENIED:
        who = "a permission is missing" if code != "403" else "this account may not do that"
        return f"{said}: {who}; {POLICY} lists those that the scripts need, scripts/iam/role.json the role's"
    if code in _EXPIRED:
        return f"{said}: the AWS credentials are wrong or have expired; run `aws sso login` or `aws configure` again"
    if code in _QUOTA:
        return f"{said}: ask for more in the Service Quotas console, or take another --instance-type or --region"
    if code in _THROTTLED:
        return f"{said}: AWS still throttles after several tries; wait a minute and call this again"
    if code in _REGION:
        return f"{said}: it lies in another region; give that one with --region"
    if code == "NoSuchBucket":
        return f"{said}: make the bucket with `aws s3 mb`, or name another one"
    if code in {"OptInRequired", "SubscriptionRequiredException"}:
        return f"{said}: the account has not been enabled for this service in this region"
    if (
        code == "ValidationException"
        and re.search(r"ECR|[Ii]mage", message)
        and re.search(r"not (found|exist|accessible)|does not exist|[Cc]annot find|Could not find", message)
    ):
        return f"{said}: push the image first (scripts/push.sh prints its URI)"
    if code in _TAKEN:
        return f"{said}: give another --name, or remove the old one with scripts/cleanup.py"
    if code in _MISSING:
        return f"{said}: check the name and --region"
    return said
