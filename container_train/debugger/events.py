"""smdebug's files of one saved step: records of TensorFlow events, with an index beside them.

A file is written in one go from this thread, and what fails is raised: smdebug's own writer takes 0.4 ms a tensor, in
a thread that a full disk leaves hanging. (smdebug/core/tfevent/proto and core/tfrecord in
https://github.com/awslabs/sagemaker-debugger.)
"""

import json
import struct
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from smdebug.core.modes import MODE_PLUGIN_NAME, MODE_STEP_PLUGIN_NAME, ModeKeys
from smdebug.core.tfevent.event_file_reader import get_tensor_data
from smdebug.core.tfevent.proto.event_pb2 import Event
from smdebug.core.tfevent.proto.summary_pb2 import SummaryMetadata
from smdebug.core.tfrecord.record_writer import CHECKSUM_MAGIC_BYTES, masked_crc32c

Array = npt.NDArray[np.float32]
FLOAT32 = 1  # DT_FLOAT in types.proto
WORKER = "worker_0"
NO_CHECKSUM = struct.pack("<I", masked_crc32c(CHECKSUM_MAGIC_BYTES))  # smdebug does not sum up the data


def write(folder: Path, step: int, mode: ModeKeys, mode_step: int, tensors: Sequence[tuple[str, Array]]) -> int:
    """Write the files of global `step` below `folder`; returns their bytes. Raises OSError.

    The index comes last: with it the step is there. It could hold shapes, too, but smdebug's reader forgets where the
    values of a tensor lie once it has read its shape.
    """
    metadata = SummaryMetadata()
    for name, text in ((MODE_STEP_PLUGIN_NAME, str(mode_step)), (MODE_PLUGIN_NAME, str(mode.value))):
        metadata.plugin_data.add(plugin_name=name, content=text)
    content, locations = bytearray(), []
    for tag, value in tensors:
        event = Event(wall_time=time.time(), step=step)
        summary = event.summary.value.add(tag=tag, metadata=metadata)
        summary.tensor.dtype, summary.tensor.tensor_content = FLOAT32, value.tobytes()
        for size in value.shape:
            summary.tensor.tensor_shape.dim.add(size=size)
        data = event.SerializeToString()
        length = struct.pack("<Q", len(data))
        record = length + struct.pack("<I", masked_crc32c(length)) + data + NO_CHECKSUM
        locations.append({"tensorname": tag, "start_idx": len(content), "length": len(record)})
        content += record
    number = f"{step:012d}"
    file = f"events/{number}/{number}_{WORKER}.tfevents"
    index = {
        "meta": {"mode": mode.name, "mode_step": mode_step, "event_file_name": file},
        "tensor_payload": locations,
        "shape_payload": [],
    }
    described = json.dumps(index).encode()
    for name, data in ((file, bytes(content)), (f"index/{step // 1000:09d}/{number}_{WORKER}.json", described)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return len(content) + len(described)


def decode(record: bytes) -> npt.NDArray[np.float64]:
    """The tensor of one record."""
    values: npt.NDArray[np.float64] = get_tensor_data(Event.FromString(record[12:-4]).summary.value[0].tensor)
    return values.astype(np.float64)
