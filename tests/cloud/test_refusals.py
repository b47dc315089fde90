"""Calls that cannot work end in one line that says why, before anything is sent."""

from pathlib import Path
from types import ModuleType

import pytest
from PIL import Image

from local_test.errors import reason
from scripts import cleanup, deploy, predict, prepare_data, train, transform, tune
from scripts.images import push
from tests.cloud.conftest import ACCOUNT, HERE, MODEL, REGION, ROLE, SERVE_IMAGE, TRAIN_IMAGE, Call

DATA = ("--data", "s3://my-data/dogs")
JOB = ("--image", TRAIN_IMAGE, *HERE, "--name", "byoc-job-1")
TRAIN = (*JOB, *DATA)
TYPES = "ml.m5.large,ml.c5.large"
SAMPLE = ("--local", "--data", "sample")
SERVE = ("--image", SERVE_IMAGE, *HERE)
BATCH = (*SERVE, "--data", "s3://my-data/photos", "--model-data", MODEL)
DRY = (*SERVE, "--dry-run")
ONE = (*DRY, "--model-data", MODEL)
ENDPOINT = (*SERVE, "--model-data", MODEL, "--name", "byoc-dogs")
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:byoc-answers"
GROUP = "byoc-dogs"
REGISTER = (*SERVE, "--model-data", MODEL, "--register", GROUP)
REGISTERED = ("--register", GROUP, "--serving-image", SERVE_IMAGE)

# deploy.py's modes, with --dry-run where it is not --local
MODES: list[tuple[str, str]] = [
    ("--serverless 2048 --subnets subnet-1 --security-groups sg-1", "--subnets: the service has no VPC there"),
    ("--serverless \u0662\u0660\u0664\u0668", "'\u0662\u0660\u0664\u0668' must be an integer from 1"),
    ("--serverless 2048 --network-isolation", "--network-isolation: the service has no network isolation"),
    ("--serverless 2048 --instance-type ml.m5.large", "--instance-type: it has no instances"),
    ("--serverless 2048 --instance-count 2", "--instance-count: it has no instances"),
    ("--serverless 2048 --async s3://b-b/a", "--async: an endpoint has one mode"),
    ("--serverless 2048 --multi-model s3://b-b/a", "--multi-model: an endpoint has one mode"),
    ("--serverless 2048 --max-instances 2", "--max-instances: it scales by itself"),
    ("--serverless 2048 --startup-timeout 300", "--startup-timeout: the service always gives it 180 s"),
    ("--serverless 2048 --update --strategy canary", "--strategy: it has no instances"),
    ("--strategy canary", "--strategy goes with --update"),
    ("--serverless 2000", "invalid choice: 2000"),
    ("--serverless 2048 --max-concurrency 201", "MaxConcurrency has value 201: expected at most 200"),
    ("--serverless 2048 --provisioned 6", "--provisioned 6 is more than --max-concurrency 5"),
    ("--provisioned 2", "--provisioned goes with --serverless"),
    ("--max-concurrency 2", "--max-concurrency goes with --serverless or --async"),
    ("--success-topic arn:aws:sns:x", "--success-topic goes with --async"),
    ("--async answers", "--async has value 'answers': expected s3://"),
    (f"--async s3://b-b/a --success-topic {TOPIC[4:]}", f"expected arn:aws:sns:{REGION}:ACCOUNT:NAME"),
    (f"--alarms --alarm-topic {TOPIC.replace(REGION, 'us-east-1')}", "a topic in this region"),
    ("--max-instances 3 --schedule at(2030-01-01T00:00:00)=1,3 --timezone Mars/X", "there is no such time zone"),
    ("--instance-type ml.c7g.large,ml.m5.large", "one image cannot be for ARM and for other processors"),
    ("--multi-model s3://b-b/a", "--multi-model cannot be combined with --model-data: its models are below"),
    ("--add dogs x.tar.gz --update", "--add cannot be combined with --name: it changes the models"),
    ("--min-instances 1", "--min-instances goes with --max-instances"),
    ("--min-instances 0 --max-instances 2", "only an endpoint with --async scales to zero"),
    ("--min-instances 3 --max-instances 2", "--min-instances 3 is more than --max-instances 2"),
    ("--instance-count 3 --max-instances 2", "--instance-count 3 is more than --max-instances 2"),
    ("--max-instances 2 --no-wait", "--no-wait cannot be combined with --max-instances"),
    ("--local --serverless 2048", "--serverless: it serves one model here"),
    # What is done around an endpoint
    ("--serverless 2048 --capture 10", "--capture: the service captures no data there"),
    ("--serverless 2048 --shadow job-2", "--shadow: the service has no shadow variants there"),
    ("--async s3://b-b/a --shadow job-2", "--shadow: the service has no shadow variants there"),
    ("--capture 101", "'101' must be an integer from 1 to 100"),
    ("--capture-to s3://b-b/c", "--capture-to goes with --capture"),
    (f"--alarm-topic {TOPIC}", "--alarm-topic goes with --alarms"),
    ("--alarms --no-wait", "--no-wait cannot be combined with --alarms"),
    ("--wait --no-wait", "not allowed with argument"),
    ("--shadow job-2 --update --strategy rolling", "the service takes one variant there"),
    ("--schedule x=1,2", "--schedule goes with --max-instances"),
    ("--max-instances 2 --schedule x=1,2", "--schedule has value 'x=1,2': expected 'cron("),
    ("--max-instances 2 --schedule at(2100-01-01T00:00:00)=0,2", "only an endpoint with --async scales to zero"),
    ("--max-instances 2 --schedule at(2100-01-01T00:00:00)=3,2", "MIN 3 is more than MAX 2"),
    (
        "--max-instances 2 --schedule at(2100-01-01T00:00:00)=1,2 --schedule at(2100-01-01T00:00:00)=2,2",
        "--schedule 'at(2100-01-01T00:00:00)' is given twice",
    ),
    ("--timezone UTC", "--timezone goes with --schedule"),
    ("--max-usd-per-day much", "'much' must be a number of 0 or more"),
    ("--instance-type ml.c6i.large --max-usd-per-day 100", "the price of 1 x ml.c6i.large, 24 h is not known here"),
    ("--local --alarms", "--alarms: that is for an endpoint in SageMaker"),
]

# When a schedule takes effect
TIMES = [
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
    ("rate(1 minutes)", "rate(1 hour), rate(2 hours)"),
    ("rate(2 minute)", "rate(1 hour), rate(2 hours)"),
    ("cron(0 8 31-1 * ? *)", "DAY has value '31-1': a range goes from the lower to the higher number"),
]

REFUSED: list[tuple[ModuleType, tuple[object, ...], str]] = [
    # Hyperparameters
    (train, (*TRAIN, "--learning-rate", "0.1"), "learning-rate (value '0.1'): did you mean lr?"),
    (train, (*TRAIN, "--epohcs", "3"), "did you mean --epochs?"),
    (train, (*TRAIN, "--instance-typ", "ml.m5.large"), "did you mean --instance-type?"),
    (train, (*TRAIN, "--epochs", "0"), "hyperparameter epochs has value '0': expected an integer from 1"),
    (train, (*TRAIN, "--weights", "IMAGENET1K_V9", "--dry-run"),
        "hyperparameter weights has value 'IMAGENET1K_V9': expected DEFAULT, none or one of IMAGENET1K_V2"),
    (train, (*TRAIN, "--freeze-until", "layer9", "--dry-run"),
        "hyperparameter freeze-until has value 'layer9': expected backbone, none or a module of resnet50"),
    (train, (*TRAIN, "--freeze-until", "layer4.9"), "has no such module before its last layer, but layer4."),
    (train, (*TRAIN, "--resize-size", "100", "--image-size", "224.0"), "resize-size has value 100: expected at"),
    (train, (*TRAIN, "--rule", "overfitt:patience=3", "--dry-run"), "unknown rule 'overfitt': did you mean overfit?"),
    (train, (*SAMPLE, "--weights", "IMAGENET1K_V9"), "hyperparameter weights has value"),
    (train, ("--image", SERVE_IMAGE, *HERE, *DATA), "is the image that serves: give the one that trains"),
    (train, ("--image", SERVE_IMAGE.replace("serve", "serve-torch"), *HERE, *DATA), "is the image that serves"),
    (train, (*TRAIN, "--register", GROUP, "--serving-image", TRAIN_IMAGE), "is the image that trains: give the one"),
    (deploy, ("--image", TRAIN_IMAGE, *HERE, "--model-data", MODEL), "is the image that trains: give the one that"),
    (deploy, (*ONE, "--instance-type", ","), "--instance-type has value ',': expected TYPE"),
    (transform, (*SERVE, "--job", "j", "--data", "nowhere"), "--data nowhere: no such folder"),
    (train, (*TRAIN, "extra"), "unexpected argument 'extra'"),
    (train, (*TRAIN, "--epochs", "1", "--epochs", "5"), "--epochs is given more than once: give it once"),
    (train, (*TRAIN, "--batch_size", "1", "--batch-size=1"), "--batch-size is given more than once"),
    (train, (*SAMPLE, "--track", "mlflow"), "track has value 'mlflow': the training image has no package for it"),
    (train, (*JOB, "--dry-run", "--foo"), "--foo has no value"),
    # A job
    (train, (*TRAIN, "--instance-type", "ml.m5.tiny"), "ResourceConfig.InstanceType has value 'ml.m5.tiny'"),
    (train, (*TRAIN, "--instance-count", "99999999"), "'99999999' must be an integer from 1 to 1000"),
    (train, (*TRAIN, "--max-run", "99999999999"), "'99999999999' must be an integer from 1 to 2419200"),
    (train, (*TRAIN, "--volume-size", "99999"), "'99999' must be an integer from 1 to 16384"),
    (train, (*TRAIN, "--spot", "--max-wait", "99999999999"),
        "StoppingCondition.MaxWaitTimeInSeconds has value 99999999999: expected at most 2147483647"),
    (train, (*TRAIN, "--environment", "A=1", "--environment", "A=2"), "--environment has A twice: '1' and '2'"),
    (train, (*TRAIN, "--environment", "NOVALUE"), "--environment has value 'NOVALUE': expected KEY=VALUE"),
    (train, (*TRAIN, "--keep-alive", "3601"), "'3601' must be an integer from 0 to 3600"),
    (train, (*TRAIN, "--keep-alive", "60", "--spot"), "--keep-alive cannot be combined with --spot"),
    (train, (*TRAIN, "--instance-type", "ml.m5.large,ml.m5.large"), "names a type twice"),
    (train, (*TRAIN, "--instance-type", "ml.m5.large,ml.p3.2xlarge"), "--instance-type ml.p3.2xlarge has a GPU"),
    (train, (*TRAIN, "--instance-type", "ml.m5.large,"), "has value 'ml.m5.large,': expected TYPE, or"),
    (train, (*TRAIN, "--instance-type", TYPES, "--no-wait"), "combined with --no-wait"),
    (train, (*TRAIN, "--instance-type", f"ml.g5.xlarge,{TYPES}", "--volume-kms-key", "alias/x"),
        "training takes a key's id or ARN here, not an alias"),
    (train, (*TRAIN, "--instance-type", "ml.m5.xlarge", "--volume-kms-key", "alias/x"), "not an alias"),
    (train, (*TRAIN, "--max-wait", "10"), "--max-wait is for spot instances"),
    (train, (*TRAIN, "--spot", "--max-run", "100", "--max-wait", "99"), "--max-wait 99 is less than --max-run 100"),
    (train, (*TRAIN, "--network-isolation"), "the ImageNet weights cannot be downloaded: give"),
    (train, (*TRAIN, "--weights", "gone.pth"), "--weights gone.pth: no such file"),
    (train, (*TRAIN, "--weights", ""), "--weights is empty"),
    (train, ("--image", TRAIN_IMAGE, *HERE, *DATA, "--name", "under_score"), "--name has value 'under_score'"),
    (train, (*TRAIN, "--checkpoints", "/tmp/x"), "--checkpoints has value '/tmp/x': expected s3://"),
    (train, (*TRAIN, "--output", "results"), "--output has value 'results': expected s3://"),
    (train, (*TRAIN, "--upload-to", "s3://x/y"), "--upload-to is for a folder"),
    (train, (*HERE, *DATA), "no --image"),
    (train, JOB, "no --data"),
    (train, (*JOB, "--data", "gone"), "--data gone is not there"),
    (train, ("--image", TRAIN_IMAGE, *DATA, "--role", ROLE), "no region"),
    (train, ("--image", TRAIN_IMAGE, "--data", "tests"), "no region"),
    (train, ("--image", TRAIN_IMAGE, *DATA, "--region", REGION), "no role"),
    (train, ("--image", TRAIN_IMAGE, *DATA, "--role", ROLE, "--region", "us-east-1"), "the region is us-east-1"),
    (train, ("--attach", "a", "--stop", "b"), "cannot be combined"),
    (train, ("--attach", "a", "--epochs", "3"), "--attach is for a job that exists"),
    (train, ("--stop", "a", "--local"), "--stop is for a job that exists, and --local for a new one"),
    (train, (*TRAIN, "--wait", "--no-wait"), "argument --no-wait: not allowed with argument --wait"),
    (train, ("--local", *DATA), "--data s3://my-data/dogs: --local neither reads nor writes in S3"),
    (train, (*SAMPLE, "--output", "s3://bucket/c"), "--output s3://bucket/c: --local"),
    (train, (*SAMPLE, "--weights", "s3://bucket/c"), "--weights s3://bucket/c: --local"),
    (train, (*SAMPLE, "--dry-run"), "--local sends nothing"),
    (train, (*TRAIN, "--register", GROUP), "--register and --serving-image: give both"),
    (train, (*TRAIN, *REGISTERED, "--no-wait"), "cannot be combined with --stop or --no-wait"),
    (train, ("--stop", "job-1", *REGISTERED, "--region", REGION), "cannot be combined with --stop or --no-wait"),
    (train, (*TRAIN, "--register", GROUP, "--serving-image", "byoc-serve:1"), "--serving-image"),
    (train, (*TRAIN, "--register", "a_b", "--serving-image", SERVE_IMAGE), "--register has value 'a_b'"),
    # A search
    (tune, (*TRAIN, "--lr", "0.1"), "--lr is in the search space"),
    (tune, (*SAMPLE, "--instance-count", "2"), "unknown hyperparameter instance-count"),
    (tune, (*TRAIN, "--strategy", "grid", "--trials", "3"), "--trials is for the other strategies"),
    (tune, (*TRAIN, "--strategy", "hyperband", "--epochs", "9", "--early-stopping"), "the service takes only one"),
    (tune, (*TRAIN, "--strategy", "hyperband"), "needs at least 3 epochs: give --epochs 9"),
    (tune, (*TRAIN, "--warm-start-type", "transfer"), "--warm-start-type goes with --warm-start"),
    (tune, (*TRAIN, "--warm-start", "a_b"), "--warm-start has value 'a_b'"),
    (tune, (*TRAIN, "--trials", "\u0665"), "argument --trials: '\u0665' must be an integer from 1"),
    (train, (*TRAIN, "--max-usd", "\u0665"), "argument --max-usd: '\u0665' must be a number of 0 or more"),
    (tune, (*TRAIN, "--trials", "0"), "argument --trials: '0' must be an integer from 1"),
    (tune, (*TRAIN, "--parallel", "0"), "argument --parallel: '0' must be an integer from 1"),
    (tune, (*TRAIN, "--parallel", "50", "--trials", "2"), "--parallel 50 is more than the 2 trials of the search"),
    (tune, (*TRAIN, "--parallel", "11", "--strategy", "grid"), "--parallel 11 is more than the 10 trials"),
    (tune, (*TRAIN, "--warm-start", ","), "--warm-start has value '': expected letters, digits"),
    (tune, (*TRAIN, "--warm-start", "a,b,c,d,e,f"), "ParentHyperParameterTuningJobs has length 6: expected at most 5"),
    (tune, (*TRAIN, "--search-space", "none.toml"), "--search-space none.toml: no such file"),
    (tune, ("--image", TRAIN_IMAGE, *HERE, *DATA, "--name", "a" * 33), "at most 32"),
    (tune, (*TRAIN, "--spot", "--max-wait", "99"), "--max-wait 99 is less than --max-run 3600"),
    (tune, JOB, "no --data"),
    (tune, ("--attach", "a", "--trials", "3"), "--attach is for a search that exists, and --trials for a new one"),
    (tune, ("--stop", "a", "--local"), "--stop is for a search that exists"),
    # A transform job
    (transform, (*SERVE, "--model-data", MODEL), "no images: give --data"),
    (transform, (*SERVE, *DATA), "no model"),
    (transform, (*DATA, "--model-data", MODEL, "--region", REGION, "--dry-run"), "no image"),
    (transform, (*BATCH, "--job", "j"), "give one of them"),
    (transform, (*SERVE, "--model-data", MODEL, "--data", "nowhere", "--dry-run"), "--data nowhere: no such folder"),
    (transform, (*BATCH, "--environment", "SAGEMAKER_MULTI_MODEL=true"), "this serves one model; a server"),
    (transform, (*BATCH, "--out", "x", "--dry-run"), "--out has value 'x'"),
    *(
        (transform, (*SERVE, "--model-data", MODEL, "--data", "s3://b-b/x", "--out", out, "--dry-run"), "is in --data")
        for out in ("s3://b-b/x", "s3://b-b/x/", "s3://b-b/x/y")
    ),
    *(
        (transform, ("--local", "--model-data", "m", "--data", ".", "--out", out), "is in --data .: the results would")
        for out in (".", "new", "new/../other")
    ),
    (transform, ("--attach", "a", "--stop", "b"), "--attach and --stop cannot be combined"),
    (transform, ("--attach", "a", "--image", SERVE_IMAGE), "--attach is for a job that exists, and --image for a new"),
    (transform, ("--attach", "a", "--model-data", MODEL), "--attach is for a job that exists, and --model-data for"),
    (transform, ("--attach", "a", "--job", "byoc-job-1"), "--attach is for a job that exists, and --job for a new"),
    (transform, ("--stop", "a", "--wait", "--no-wait"), "argument --no-wait: not allowed with argument --wait"),
    (transform, ("--local", *DATA, "--model-data", "m"), "from a folder here"),
    (transform, ("--local", "--data", ".", "--job", "j"), "no --job"),
    # An endpoint
    (deploy, (*DRY,), "no model"),
    (deploy, ("--model-data", MODEL, *HERE, "--dry-run"), "no image"),
    (deploy, ("--model-data", MODEL, "--image", SERVE_IMAGE, "--region", REGION, "--dry-run"), "no role"),
    (deploy, ("--model-data", MODEL, "--image", SERVE_IMAGE, "--role", ROLE, "--dry-run"), "no region"),
    (deploy, (*ONE, "--job", "j"), "give one of them"),
    (deploy, (*DRY, "--job", MODEL), "expected a training job's name; --model-data takes an address"),
    (transform, (*SERVE, "--data", "s3://my-data/photos", "--job", MODEL), "expected a training job's name"),
    (deploy, (*DRY, "--model-data", MODEL.removesuffix("/model.tar.gz")), "model.tar.gz, the file itself"),
    (deploy, ("--image", "byoc-serve:1", *HERE, "--model-data", MODEL, "--dry-run"), "expected ACCOUNT.dkr.ecr"),
    (deploy, ("--image", SERVE_IMAGE, "--role", ROLE, "--region", "us-east-1", "--model-data", MODEL, "--dry-run"),
        "and the region is us-east-1"),
    (deploy, (*ONE, "--instance-type", "ml.m5.large,ml.m5.large"), "names a type twice"),
    (deploy, (*ONE, "--instance-type", "ml.m5.large,ml.c5.largee"), "did you mean ml.c5"),
    (deploy, (*ONE, "--page"), "--page goes with --local"),
    (deploy, (*ONE, "--environment", "BYOC_PAGE=True"), "BYOC_PAGE=true"),
    (deploy, (*ONE, "--instance-type", "ml.m5.largee"), "did you mean ml.m5"),
    (deploy, (*ONE, "--name", "dogs_1"), "--name"),
    (deploy, (*ONE, "--update"), "--name"),
    (deploy, (*ONE, "--prune"), "--prune goes with --update"),
    (deploy, (*ONE, "--name", "byoc-a", "--update", "--strategy", "rolling", "--instance-count", "1"),
        "--instance-count"),
    (deploy, (*ONE, "--environment", "BYOC_THREADS"), "KEY=VALUE"),
    (deploy, (*ONE, "--environment", "BYOC_THREADS=x"), "--environment BYOC_THREADS: got 'x'"),
    (deploy, (*ONE, "--environment", "SAGEMAKER_MULTI_MODEL=True"), "this serves one model; a server"),
    (deploy, ("--local", "--model-data", "x", "--environment", "SAGEMAKER_MULTI_MODEL=true"),
        "this serves one model; a server"),
    (deploy, (*ONE, "--port", "8080"), "--local"),
    (deploy, (*SERVE, "--dry-run", "--multi-model", "s3://b-b/a", "--remove", ""), "--remove is empty: give a value"),
    (deploy, (*ONE, "--async="), "--async is empty: give a value, or leave it out"),
    (prepare_data, ("pets", "--out", ""), "--out: is empty: give a value, or leave it out"),
    (deploy, ("--attach", "byoc-a", "--name", "byoc-a", "--update"), "--attach cannot be combined with --name"),
    *((deploy, (*ONE, "--max-instances", "3", "--schedule", f"at({when})=1,3"), "expected at(YYYY-MM-DDThh:mm:ss)")
      for when in ("2100-01-01", "2100-01-01T00:00:00Z")),
    (deploy, ("--local", "--job", "j"), "--local cannot be combined with --job"),
    (deploy, ("--local",), "no model"),
    (deploy, ("--attach", "byoc-a", "--image", SERVE_IMAGE), "--attach"),
    *((deploy, ("--local" if "--local" in flags else "--dry-run", *ENDPOINT, *flags.split()), words)
      for flags, words in MODES),
    *((deploy, (*ONE, "--max-instances", "2", "--schedule", f"{when}=1,2"), words) for when, words in TIMES),
    (deploy, (*HERE, "--add", "dogs", "x.tar.gz", "--dry-run"), "--add goes with --multi-model"),
    (deploy, (*HERE, "--remove", "dogs", "--dry-run"), "--remove goes with --multi-model"),
    # The model registry
    (deploy, (*REGISTER, "--instance-type", TYPES), "give one"),
    (deploy, (*SERVE, "--model-package", GROUP), "--model-package cannot be combined with --image: it says which"),
    (deploy, ("--model-package", f"{GROUP}:0", *HERE), "expected GROUP or GROUP:VERSION, such as byoc-dogs:3"),
    (deploy, ("--approve", "a_b", *HERE), "--approve has value 'a_b'"),
    (deploy, ("--approve", GROUP, "--model-package", GROUP), "give one of them"),
    (deploy, (*SERVE, "--register", GROUP), "no model: give --model-data"),
    (deploy, ("--register", GROUP, "--model-data", MODEL, *HERE), "no image: give --image"),
    (deploy, (*SERVE, "--model-data", MODEL, "--register", "a:b"), "--register has value 'a:b'"),
    (deploy, (*REGISTER, "--name", "x"), "--register cannot be combined with --name: it makes no endpoint"),
    (deploy, (*REGISTER, "--serverless", "2048"), "--serverless: it makes no endpoint"),
    (deploy, (*REGISTER, "--capture", "5"), "--capture: it makes no endpoint"),
    (deploy, ("--local", "--model-package", GROUP), "--model-package: it knows no model registry"),
    (deploy, ("--model-package", GROUP, "--multi-model", "s3://bucket/models", *HERE),
        "--multi-model cannot be combined with --model-package"),
    # Cleaning up
    (cleanup, ("--region", REGION, "byoc_x"), "NAME has value"),
    (cleanup, ("--region", REGION, "byoc-x", "--all"), "give one of them"),
    (cleanup, ("--region", "eu-cental-1"), "there is no region eu-cental-1"),
    (cleanup, ("--region", "eu-cental-1"), "did you mean eu-central-1"),
    (cleanup, ("--region", "xx-nowhere-1"), "expected one such as eu-central-1"),
    *((cleanup, (*flags, "--region", REGION, "--dry-run"), "--dry-run asks AWS nothing")
      for flags in (("--all",), (), ("byoc-dogs", "--data"))),
    # Images
    (push, ("--tag", "a/b"), "--tag has value 'a/b'"),
    (push, ("--registry", "https://registry.example.com"), "--registry has value 'https://registry.example.com'"),
    (push, (), "no region"),
    (push, ("--region", "Frankfurt"), "--region has value 'Frankfurt'"),
    # Predictions
    (predict, ("byoc-dogs", __file__), "no region"),
    (predict, ("byoc-dogs",), "no images"),
    (predict, ("byoc dogs!", "dog.jpg", "--region", REGION), "ENDPOINT has value 'byoc dogs!': expected letters"),
    (predict, ("byoc-dogs", "s3://b-b/a.jpg"), "images in S3 go with --async"),
    (predict, ("byoc-dogs", "s3://b-b/a.jpg", "--async", "--model", "dogs"),
        "cannot be combined with --local or --model"),
    (predict, (__file__, __file__), "name the endpoint first"),
    (predict, ("--local", "ftp://here", __file__), "--local has value 'ftp://here'"),
    (predict, ("--local", "http://127.0.0.1:abc", __file__), "value 'http://127.0.0.1:abc': expected a URL"),
    (predict, ("--local", "http://local host:80", __file__), "expected a URL"),
    (predict, ("--local", "http://[::1", __file__), "expected a URL"),
    (predict, ("--local", "localhost:1", "scripts/iam"), "no images in this folder"),
]  # fmt: skip


@pytest.mark.parametrize(("script", "arguments", "words"), REFUSED)
def test_refused_before_anything_is_sent(
    call: Call, calls: list[str], script: ModuleType, arguments: tuple[object, ...], words: str
) -> None:
    ended = call(script, *arguments)
    assert (ended.code, ended.out, calls) == (2, "", []), ended.err
    assert words in ended.last


@pytest.mark.parametrize("script", [train, tune])
def test_a_folder_that_is_no_data_set_is_told_before_engine_and_weights(call: Call, script: ModuleType) -> None:
    ended = call(script, "--local", "--data", "scripts/iam")
    assert (ended.code, len(ended.err.splitlines())) == (1, 1), ended.err
    assert "scripts/iam has no class folders" in ended.last


def test_an_error_of_the_system_is_said_without_its_number(call: Call, tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    ended = call(predict, "--local", "localhost:1", tmp_path / "a.png").ends(1, "(Connection refused)")
    assert "Errno" not in ended.err
    assert reason(OSError(28, "No space left on device", "/tmp/x")) == "No space left on device"
    assert reason(ValueError("two\n lines")) == "two lines"
    assert reason(ValueError()) == "ValueError"
