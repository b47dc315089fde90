"""smdebug's files of one saved step, written and read without its protobuf code.

smdebug takes 0.4 ms a tensor for it and writes from a thread that a full disk leaves hanging; here a file is written in
one go, and what fails is raised. The files are smdebug's own format: records of TensorFlow events
(https://github.com/awslabs/sagemaker-debugger, smdebug/core/tfevent/proto, core/tfrecord), with an index beside them.
"""

import json
import struct
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.generic]
TYPES = {"<f4": 1, "<f8": 2, "<i4": 3, "|u1": 4, "<i8": 9, "<f2": 19}  # numbers of DataType in types.proto
DTYPES = {number: np.dtype(name) for name, number in TYPES.items()}
MODES = {"TRAIN": 1, "EVAL": 2, "PREDICT": 3, "GLOBAL": 4}
WORKER = "worker_0"
NO_CHECKSUM = b"0x12345678"  # smdebug puts the checksum of this constant in place of the data's


def write(folder: Path, step: int, mode: str, mode_step: int, tensors: Sequence[tuple[str, Array]]) -> int:
    """Write the files of global `step` below `folder`; returns their bytes. Raises OSError.

    The index comes last: with it the step is there. It could hold shapes, too, but smdebug's reader forgets where the
    values of a tensor lie once it has read its shape.
    """
    number, now = f"{step:012d}", time.time()
    name = f"events/{number}/{number}_{WORKER}.tfevents"
    index = folder / "index" / f"{step // 1000:09d}" / f"{number}_{WORKER}.json"
    content, locations = bytearray(), []
    said = (("mode_step", str(mode_step)), ("mode", str(MODES[mode])))
    metadata = b"".join(_bytes(1, _bytes(1, key.encode()) + _bytes(2, text.encode())) for key, text in said)
    head, tail = b"\x09" + struct.pack("<d", now) + _number(2, step), _bytes(9, metadata)
    for tag, value in tensors:
        record = _record(head + _bytes(5, _bytes(1, _bytes(1, tag.encode()) + _bytes(8, _tensor(value)) + tail)))
        locations.append({"tensorname": tag, "start_idx": len(content), "length": len(record)})
        content += record
    described = {
        "meta": {"mode": mode, "mode_step": mode_step, "event_file_name": name},
        "tensor_payload": locations,
        "shape_payload": [],
    }
    text = json.dumps(described).encode()
    for path, data in ((folder / name, bytes(content)), (index, text)):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return len(content) + len(text)


def decode(record: bytes) -> Array:
    """The tensor of one record. Raises ValueError where it is damaged or holds no plain numbers."""
    if len(record) < 16 or struct.unpack_from("<Q", record)[0] != len(record) - 16:
        raise ValueError("the record is cut short")
    try:
        summary = _field(record[12:-4], 5)
        tensor = dict(_fields(_field(_field(summary, 1), 8)))
        sizes = [_integer(dict(_fields(dim)).get(1, b"\0")) for n, dim in _fields(tensor.get(2, b"")) if n == 2]
        return np.frombuffer(tensor[4], dtype=DTYPES[_integer(tensor[1])]).reshape(sizes)
    except (KeyError, IndexError, struct.error) as error:
        raise ValueError(f"the record holds no tensor of numbers ({error!r})") from error


def _tensor(value: Array) -> bytes:
    shape = b"".join(_bytes(2, _number(1, size)) for size in value.shape)
    return _number(1, TYPES[value.dtype.str]) + _bytes(2, shape) + _bytes(4, value.tobytes())


def _record(event: bytes) -> bytes:
    length = struct.pack("<Q", len(event))
    return length + struct.pack("<I", _checksum(length)) + event + struct.pack("<I", _checksum(NO_CHECKSUM))


_checksums: dict[bytes, int] = {}


def _checksum(data: bytes) -> int:
    # Lengths repeat from step to step, and smdebug's checksum is plain Python.
    if data not in _checksums:
        from smdebug.core.tfrecord.record_writer import masked_crc32c

        _checksums[data] = masked_crc32c(data)
    return _checksums[data]


def _varint(value: int) -> bytes:
    result = bytearray()
    while value > 127:
        result.append(value & 127 | 128)
        value >>= 7
    result.append(value)
    return bytes(result)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The fields of a protobuf message; a number is given as its varint."""
    at = 0
    while at < len(message):
        key, at = _read(message, at)
        kind, start = key & 7, at
        if kind == 0:
            _, at = _read(message, at)
        elif kind == 2:
            size, start = _read(message, at)
            at = start + size
        else:
            at += {1: 8, 5: 4}[kind]
        if at > len(message):
            raise IndexError("the message is cut short")
        yield key >> 3, message[start:at]


def _field(message: bytes, number: int) -> bytes:
    for field, content in _fields(message):
        if field == number:
            return content
    raise KeyError(number)


def _integer(varint: bytes) -> int:
    return _read(varint, 0)[0]


def _read(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
