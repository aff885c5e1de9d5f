"""Data in S3, read by the prepare stage from a server that speaks S3 over HTTP (moto), and everything that a job's
Secret or URI may get wrong about it."""

import json
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.trainer.support import Job, write_dataset
from tests.trainer.test_data import write
from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import TrainerConfig
from tunewright_trainer.data import locate
from tunewright_trainer.errors import StageError
from tunewright_trainer.stages import prepare

BUCKET = "team-data"
ROWS = [{"instruction": f"What is {n}?", "output": f"{n} is a number."} for n in range(20)]
TEXTS = [{"text": f"Document {n}."} for n in range(10)]


@dataclass(frozen=True)
class Store:
    """A server with one bucket.

    Attributes:
        endpoint: URL of the server.
        keys: What dataset.secretRef holds for a user who may read the bucket.
        stranger: The same for a user who may read nothing.
    """

    endpoint: str
    keys: dict[str, str]
    stranger: dict[str, str]


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """An S3 that checks signatures and policies."""
    import boto3  # type: ignore[import-untyped]
    import moto.settings
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    admin = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "eu-central-1"}
    bucket = boto3.resource("s3", endpoint_url=endpoint, **admin).Bucket(BUCKET)
    bucket.create(CreateBucketConfiguration={"LocationConstraint": "eu-central-1"})
    files = tmp_path_factory.mktemp("s3")
    for name in ("rows.jsonl", "rows.jsonl.gz", "rows.parquet", "set/train-00000-of-00001.parquet"):
        bucket.upload_file(str(write(files / name, ROWS)), name)
    for name in ("texts/a.jsonl", "texts/b.jsonl"):
        bucket.upload_file(str(write(files / name, TEXTS)), name)
    bucket.put_object(Key="cut.jsonl.gz", Body=(files / "rows.jsonl.gz").read_bytes()[:-12])
    bucket.put_object(Key="loose/readme.txt", Body=b"no data")
    bucket.put_object(Key="texts/", Body=b"")  # what a console's "create folder" leaves
    bucket.put_object(Key="empty.jsonl", Body=b"")
    iam = boto3.client("iam", endpoint_url=endpoint, **admin)
    reader, stranger = _user(iam, endpoint, "reader"), _user(iam, endpoint, "stranger")
    statement = {"Effect": "Allow", "Action": "s3:*", "Resource": "*"}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_user_policy(UserName="reader", PolicyName="read", PolicyDocument=policy)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0)  # from now on signatures and policies count
        yield Store(endpoint, reader, stranger)
    server.stop()


def _user(iam: Any, endpoint: str, name: str) -> dict[str, str]:
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "eu-central-1",
    }


def prepared(job: Job) -> dict[str, Any]:
    account: dict[str, Any] = json.loads((job.work / "dataset" / "account.json").read_text())
    return account


def test_a_dataset_in_s3(job: Callable[..., Job], s3: Store) -> None:
    uri = f"s3://{BUCKET}/rows.jsonl"
    made = job(dataset={"path": uri, "format": "Alpaca"})
    finished = made.run("prepare", env=s3.keys)
    assert finished.code == 0, finished.describe()
    assert (finished.message["prepare"]["train"], finished.message["prepare"]["validation"]) == (18, 2)
    assert prepared(made)["sources"][0]["path"] == uri
    assert [entry.name for entry in made.work.iterdir()] == ["dataset"]  # the copy is gone


def test_a_mixture_of_a_claim_and_of_everything_that_s3_may_hold(job: Callable[..., Job], s3: Store) -> None:
    made = job()
    own = str(write_dataset(made.root / "own.jsonl"))
    rows = [f"s3://{BUCKET}/{name}" for name in ("rows.jsonl.gz", "rows.parquet", "set")]
    parts = [{"path": path, "format": "Alpaca"} for path in (own, *rows)]
    parts.append({"path": f"s3://{BUCKET}/texts", "format": "Text"})
    made.config["dataset"] = {"mixture": parts, "validationPercent": 10}
    finished = made.run("prepare", env=s3.keys)
    assert finished.code == 0, finished.describe()
    assert [part["read"] for part in prepared(made)["sources"]] == [40, 20, 20, 20, 20]
    assert finished.message["prepare"]["duplicates"] == 20 + 20 + 10


def test_prepare_ends_with_one_line_where_s3_refuses(job: Callable[..., Job], s3: Store) -> None:
    made = job(dataset={"path": f"s3://{BUCKET}/rows.jsonl", "format": "Alpaca"})
    finished = made.run("prepare", env={**s3.keys, "AWS_SECRET_ACCESS_KEY": "mistyped"})
    assert finished.code == ExitCode.INPUT_NOT_READABLE, finished.describe()
    assert finished.message["message"].startswith(
        f"cannot read s3://{BUCKET}/rows.jsonl: S3 refuses the credentials (The request signature we calculated does "
        "not match"
    )
    assert len(finished.output.splitlines()) == 1


@dataclass(frozen=True)
class Case:
    """A URI without its scheme, and what prepare says; `changes` are made to the Secret of a user who may read."""

    uri: str
    code: ExitCode
    words: str
    changes: dict[str, str] = field(default_factory=dict)
    stranger: bool = False

    def secret(self, store: Store) -> dict[str, str]:
        return {**(store.stranger if self.stranger else store.keys), **self.changes}


ABSENT, WRONG = ExitCode.INPUT_NOT_READABLE, ExitCode.INVALID_DATA
FILE, NO_HOST = "team-data/rows.jsonl", "http://minio.does-not-exist.invalid:9000"
NO_KEYS = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
CASES = {
    "no such key": Case("team-data/none.jsonl", ABSENT, "there is no such object and nothing below it"),
    "no such bucket": Case("none/rows.jsonl", ABSENT, "there is no such bucket"),
    "a prefix that is no dataset": Case(
        "team-data/loose", ABSENT, "cannot read s3://team-data/loose: it is a directory, and holds neither Parquet"
    ),
    "an empty object": Case("team-data/empty.jsonl", WRONG, "s3://team-data/empty.jsonl has no records"),
    "a damaged object": Case("team-data/cut.jsonl.gz", WRONG, "s3://team-data/cut.jsonl.gz is damaged"),
    "a user who may not read": Case(FILE, ABSENT, "S3 refuses the credentials (Access Denied): check", stranger=True),
    "no Secret": Case(FILE, ABSENT, "there are no credentials: set dataset.secretRef to a Secret with", NO_KEYS),
    "an endpoint without a name": Case(FILE, ABSENT, f"{NO_HOST} does not answer", {"AWS_ENDPOINT_URL": NO_HOST}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_prepare_refuses(job: Callable[..., Job], s3: Store, monkeypatch: pytest.MonkeyPatch, case: Case) -> None:
    refused = refusal(job(dataset={"path": f"s3://{case.uri}", "format": "Alpaca"}), case.secret(s3), monkeypatch)
    assert refused.code is case.code
    assert case.words in refused.message
    assert "\n" not in refused.message


def refusal(job: Job, secret: dict[str, str], patch: pytest.MonkeyPatch) -> StageError:
    """What prepare says, in this process."""
    for name, value in secret.items():
        patch.setenv(name, value)
    with pytest.raises(StageError) as caught:
        prepare.run(TrainerConfig.model_validate(job.config))
    return caught.value


def test_a_server_that_says_nothing_is_given_up(
    job: Callable[..., Job], s3: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locate, "_READ_TIMEOUT", 0.05)
    made = job(dataset={"path": f"s3://{BUCKET}/rows.jsonl", "format": "Alpaca"})
    with socket.create_server(("127.0.0.1", 0), backlog=100) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        given_up = refusal(made, {**s3.keys, "AWS_ENDPOINT_URL": endpoint}, monkeypatch)
        server.setblocking(False)
        attempts = len(list(waiting(server)))
    assert given_up.code is ExitCode.INPUT_NOT_READABLE
    assert given_up.message.startswith(
        f"cannot read s3://{BUCKET}/rows.jsonl: {endpoint} does not answer (Read timeout"
    )
    assert attempts == 9  # of 15 seconds each where no test has shortened them


def waiting(server: socket.socket) -> Iterator[socket.socket]:
    """The connections that a server was asked for."""
    while True:
        try:
            connection, _ = server.accept()
        except BlockingIOError:
            return
        with connection:
            yield connection
