"""Small model directories, written where the pools' stores see them as /sources."""

import os
from pathlib import Path

CONFIG = """backend: "python"
max_batch_size: 0
input [{ name: "X" data_type: TYPE_FP32 dims: [1] }]
output [{ name: "Y" data_type: TYPE_FP32 dims: [1] }]
instance_group [{ count: 1 kind: KIND_CPU }]
"""

_CODE = """import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        time.sleep({sleep_seconds})

    def execute(self, requests):
        return [self.answer(pb.get_input_tensor_by_name(request, "X").as_numpy()) for request in requests]

    def answer(self, x):
        return pb.InferenceResponse([pb.Tensor("Y", (x * 2).astype(np.float32))])
"""


def sources() -> Path:
    """The folder that pools see as /sources."""
    return Path(os.environ["ERGON_MODELS"])


def write_model(name: str, sleep_seconds: float = 0.0) -> str:
    """Write a model that doubles a number, and sleeps so long in `initialize`; returns its URI."""
    version = sources() / name / "1"
    version.mkdir(parents=True, exist_ok=True)
    (version.parent / "config.pbtxt").write_text(CONFIG)
    (version / "model.py").write_text(_CODE.format(sleep_seconds=sleep_seconds))
    return f"file:///{name}"
