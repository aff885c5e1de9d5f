"""TensorBoard event files: TFRecords of Event messages.

The format of a record (https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details): length as
uint64, masked CRC-32C of it, the message, masked CRC-32C of that, all little-endian. TensorBoard's own writer is not
used because importing it takes two seconds of the start-up of every run.
"""

import math
import os
import socket
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

from tunewright_trainer.files import remove_tree
from tunewright_trainer.report.steplog import LoggedStep
from tunewright_trainer.steps import StepRecord

_POLYNOMIAL = 0x82F63B78
_MASK = 0xA282EAD8
_FLUSH_EVERY = 20


class TensorBoardLog:
    """One event file in a directory that holds nothing else; begins with the steps that are kept."""

    def __init__(self, directory: Path, kept: Iterable[LoggedStep], *, now: float) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._event = Event
        remove_tree(directory)
        directory.mkdir(parents=True)
        name = f"events.out.tfevents.{int(now)}.{socket.gethostname()}.{os.getpid()}"
        self._file = (directory / name).open("wb")
        self._unflushed = 0
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        for step in kept:
            self.append(step)
        self._file.flush()

    def append(self, step: LoggedStep) -> None:
        """Write the scalars of a step; TensorBoard sees them after _FLUSH_EVERY steps at the latest."""
        event = self._event(wall_time=step.time, step=step.record.step)
        for tag, value in scalars(step.record).items():
            event.summary.value.add(tag=tag, simple_value=value)
        self._write(event)

    def close(self) -> None:
        """Flush and close."""
        self._file.close()

    def _write(self, event: object) -> None:
        data: bytes = event.SerializeToString()  # type: ignore[attr-defined]
        length = struct.pack("<Q", len(data))
        self._file.write(length + _masked_crc(length) + data + _masked_crc(data))
        self._unflushed += 1
        if self._unflushed >= _FLUSH_EVERY:
            self._file.flush()
            self._unflushed = 0


def scalars(record: StepRecord) -> Mapping[str, float]:
    """The finite figures of a step by TensorBoard tag."""
    found = {
        "train/loss": record.loss,
        "train/learning_rate": record.learning_rate,
        "train/grad_norm": record.grad_norm,
        "train/epoch": record.epoch,
        "speed/tokens_per_second": record.tokens_per_second,
        "speed/samples_per_second": record.samples_per_second,
        "speed/step_seconds": record.seconds,
        "speed/data_wait_share": record.data_wait_share,
        "speed/checkpoint_stall_seconds": record.checkpoint_stall_seconds,
        "memory/bytes": float(record.memory_bytes),
        "memory/peak_bytes": float(record.peak_memory_bytes),
        **{f"figures/{name}": value for name, value in record.figures.items()},
    }
    return {tag: value for tag, value in found.items() if math.isfinite(value)}


def _table() -> tuple[int, ...]:
    table = []
    for byte in range(256):
        crc = byte
        for _ in range(8):
            crc = crc >> 1 ^ (_POLYNOMIAL if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


_TABLE = _table()


def crc32c(data: bytes) -> int:
    """CRC-32C (Castagnoli)."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def _masked_crc(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF)
