"""Errors of AWS in one line: what went wrong, where, what to do."""

import re

from botocore import exceptions

from local_test.errors import LocalError

POLICY = "scripts/iam/scripts.json"  # the permissions that the scripts need


class CloudError(LocalError):
    """Ends a script; `str()` is one line, `code` the exit code."""


_UNREACHABLE = (exceptions.ConnectionError, exceptions.HTTPClientError)  # time-outs, proxies and TLS are kinds of them

_DENIED = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedAccess", "403", "Forbidden"}
_THROTTLED = {
    "Throttling", "ThrottlingException", "ThrottledException", "TooManyRequestsException", "RequestLimitExceeded",
    "SlowDown",
}  # fmt: skip
_EXPIRED = (
    "ExpiredToken ExpiredTokenException InvalidClientTokenId UnrecognizedClientException SignatureDoesNotMatch"
    " InvalidAccessKeyId InvalidSignatureException RequestExpired AuthFailure"
)
NO_REGION = 'no region: give --region, set AWS_REGION, or write region = "..." into byoc.toml'
# By botocore's exceptions; {} is what each says itself.
_SAID: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((exceptions.ProfileNotFound,), "{}: correct AWS_PROFILE, or run `aws configure --profile NAME`"),
    ((exceptions.NoRegionError,), NO_REGION),
    (
        (
            exceptions.NoCredentialsError, exceptions.PartialCredentialsError, exceptions.CredentialRetrievalError,
            exceptions.NoAuthTokenError, exceptions.TokenRetrievalError, exceptions.SSOError,
        ),
        "no usable AWS credentials ({}): run `aws configure` or `aws sso login`, or set AWS_PROFILE",
    ),
    (
        _UNREACHABLE,
        "AWS cannot be reached ({}): check the network and HTTPS_PROXY, and that the region is spelt right if nothing"
        " has worked yet",
    ),
)  # fmt: skip
# What to do, by the service's codes.
_REMEDIES = {
    code: remedy
    for codes, remedy in (
        (
            " ".join(_DENIED),
            f"a permission is missing; {POLICY} lists those that the scripts need",
        ),
        (" ".join(_THROTTLED), "AWS still throttles after several tries; wait a minute and call this again"),
        (_EXPIRED, "the AWS credentials are wrong or have expired; run `aws sso login` or `aws configure` again"),
        (
            "ResourceLimitExceeded LimitExceededException ServiceQuotaExceededException",
            "ask for more in the Service Quotas console, or take another --instance-type or --region",
        ),
        (
            "PermanentRedirect AuthorizationHeaderMalformed IllegalLocationConstraintException 301",
            "it is in another region; give that one with --region",
        ),
        ("NoSuchBucket", "make the bucket with `aws s3 mb`, or name another one"),
        (
            "OptInRequired SubscriptionRequiredException",
            "the account has not been enabled for this service in this region",
        ),
        (
            "ResourceInUse ResourceInUseException",
            "give another --name, or remove the old one with scripts/cleanup.py",
        ),
        ("ResourceNotFound ResourceNotFoundException", "check the name and --region"),
    )
    for code in codes.split()
}


def explain(error: Exception) -> CloudError:
    """The one line for an exception of botocore's or boto3's."""
    if isinstance(error, CloudError):
        return error
    if isinstance(error, exceptions.ClientError):
        return CloudError(_client_error(error))
    said = next((words for kinds, words in _SAID if isinstance(error, kinds)), "{}")
    if type(error).__name__ == "ResponseParserError":  # the module of which takes long to import
        said = "what answered is not AWS: a web page, or something else that cannot be read; check HTTPS_PROXY and"
        said += " AWS_ENDPOINT_URL"
    return CloudError(said.format(one_line(str(error))))


def code_of(error: exceptions.ClientError) -> str:
    """The service's own word for it, such as ResourceInUse."""
    return str(error.response.get("Error", {}).get("Code", ""))


def message_of(error: exceptions.ClientError) -> str:
    return one_line(str(error.response.get("Error", {}).get("Message", "") or error))


def is_denied(error: exceptions.ClientError) -> bool:
    """Tell whether a permission is missing."""
    return code_of(error) in _DENIED


def is_missing(error: exceptions.ClientError) -> bool:
    """SageMaker has no code of its own for what is not there."""
    text = message_of(error).lower()
    return code_of(error) in {"ValidationException", "ResourceNotFound"} and any(
        words in text for words in ("not found", "could not find", "does not exist")
    )


def is_throttled(error: exceptions.ClientError) -> bool:
    """Tell whether the service refused it for the number of calls alone, and did nothing."""
    return code_of(error) in _THROTTLED


def is_passing(error: Exception) -> bool:
    """Tell whether it may go away by itself: throttling, a network that is down, an error on the service's side."""
    if isinstance(error, exceptions.ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return is_throttled(error) or status >= 500
    return isinstance(error, _UNREACHABLE)


def one_line(text: str) -> str:
    return re.sub(r"\s+", " ", text).strip()


def _client_error(error: exceptions.ClientError) -> str:
    code, message = code_of(error), message_of(error)
    remedy = _REMEDIES.get(code)
    if "assume" in message.lower() and "role" in message.lower():
        remedy = "the role's trust policy must let sagemaker.amazonaws.com assume it (scripts/iam/trust.json)"
    elif (
        code == "ValidationException"
        and re.search(r"ECR|[Ii]mage", message)
        and re.search(r"not (found|exist|accessible)|does not exist|[Cc]annot find|Could not find", message)
    ):
        remedy = "push the image first (scripts/push.sh prints its URI)"
    said = f"{error.operation_name}: {message} ({code})"
    return f"{said}: {remedy}" if remedy else said
