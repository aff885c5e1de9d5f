"""Where the data is: local files, and those of s3:// that are first copied here.

A copy is made because every file is read twice, to digest and to parse, and Parquet is read from its end.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tunewright_api.names import ExitCode
from tunewright_api.trainer_config import DatasetInput, MixtureInput
from tunewright_trainer import log
from tunewright_trainer.data.build import Source
from tunewright_trainer.data.rows import find_files
from tunewright_trainer.errors import StageError, not_readable

_S3 = "s3://"
_CONNECT_TIMEOUT, _READ_TIMEOUT = 10.0, 15.0
"""Seconds of silence."""
_RETRIES, _ROUNDS = 2, 3
"""botocore repeats a request that got no answer, s3fs the whole of it, and a file that breaks off from where it is. So
a server that takes connections and says nothing is given up after (_RETRIES + 1) x _ROUNDS time-outs."""
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def locate(dataset: DatasetInput, scratch: Path) -> list[Source]:
    """Find the files of each part; `scratch` receives what is in S3.

    Raises:
        StageError: INPUT_NOT_READABLE for what is not there, INVALID_DATA for a directory of several splits or kinds
            of files.
    """
    return [_locate(part, scratch / str(number)) for number, part in enumerate(dataset.sources)]


def _locate(part: MixtureInput, scratch: Path) -> Source:
    if part.path.startswith(_S3):
        root = fetch_s3(part.path, scratch)
        return Source(part, [(_original(file, root, part.path), file) for file in find_files(root, part.path)])
    path = Path(part.path)
    if not path.exists():
        raise not_readable(path, "it does not exist")
    return Source(part, [(str(file), file) for file in find_files(path)])


def _original(file: Path, root: Path, uri: str) -> str:
    return uri if file == root else f"{uri.rstrip('/')}/{file.relative_to(root)}"


def fetch_s3(uri: str, scratch: Path) -> Path:
    """Copy an object, or all objects below a prefix, and return where it lies now.

    Endpoint, region and credentials come from the environment as AWS's own tools read it: AWS_ENDPOINT_URL, AWS_REGION,
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN.

    Raises:
        StageError: INPUT_NOT_READABLE, saying what to check.
    """
    import s3fs  # type: ignore[import-untyped]

    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    store = s3fs.S3FileSystem(
        endpoint_url=os.environ.get("AWS_ENDPOINT_URL") or None,
        client_kwargs={"region_name": region} if region else {},
        config_kwargs={
            "connect_timeout": _CONNECT_TIMEOUT,
            "read_timeout": _READ_TIMEOUT,
            "retries": {"max_attempts": _RETRIES},
        },
        skip_instance_cache=True,
    )
    store.retries = _ROUNDS
    key = uri.removeprefix(_S3).rstrip("/")
    try:
        objects = _objects(store, key)
        if not objects:
            raise _unreadable(uri, "there is no such object and nothing below it: check bucket and key")
        log.info("copying from S3", uri=uri, objects=len(objects))
        target = scratch / key.rpartition("/")[2]
        for name in objects:
            local = target / name.removeprefix(key).lstrip("/") if name != key else target
            local.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(name, str(local))
        return target
    except StageError:
        raise
    except PermissionError as error:
        raise _unreadable(
            uri,
            f"S3 refuses the credentials ({_line(error)}): check the keys AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY "
            "of dataset.secretRef and what they may read",
        ) from error
    except FileNotFoundError as error:
        raise _unreadable(uri, "there is no such bucket or object: check bucket and key") from error
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _DISK_FULL:
            raise
        if type(error).__name__ in {"NoCredentialsError", "PartialCredentialsError"}:
            raise _unreadable(
                uri,
                "there are no credentials: set dataset.secretRef to a Secret with AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY",
            ) from error
        where = os.environ.get("AWS_ENDPOINT_URL") or "AWS (AWS_ENDPOINT_URL is not set)"
        raise _unreadable(
            uri,
            f"{where} does not answer ({_line(error)}): check AWS_ENDPOINT_URL in dataset.secretRef and the pod's way "
            "to it",
        ) from error


def _objects(store: Any, key: str) -> Sequence[str]:
    """The object itself, or what lies below the prefix, markers of empty directories left out."""
    found = store.find(key, withdirs=False)
    return sorted(str(name) for name in found if not str(name).endswith("/"))


def _unreadable(uri: str, why: str) -> StageError:
    return StageError(ExitCode.INPUT_NOT_READABLE, f"cannot read {uri}: {why}")


def _line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
