"""The content type of a few bytes (pdf, html, python, ...), told by Magika's classifier through ONNX Runtime."""

import magika
import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


def one_thread_each(original=onnxruntime.InferenceSession):
    """Magika offers no thread option; many models share this server, so each keeps to one core."""

    def start(path, **options):
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = settings.inter_op_num_threads = 1
        return original(path, sess_options=settings, **options)

    return start


class TritonPythonModel:
    def initialize(self, args):
        onnxruntime.InferenceSession = one_thread_each()
        self.classifier = magika.Magika()
        self.classifier.identify_bytes(b"warm up, with enough bytes to reach the model " * 4)

    def execute(self, requests):
        return [self.answer(pb.get_input_tensor_by_name(request, "CONTENT").as_numpy()) for request in requests]

    def answer(self, contents):
        results = [self.classifier.identify_bytes(content) for content in contents.reshape(-1)]
        labels = np.array([str(result.output.label).encode() for result in results], dtype=object)
        scores = np.array([result.score for result in results], dtype=np.float32)
        return pb.InferenceResponse(
            [pb.Tensor("LABEL", labels.reshape(contents.shape)), pb.Tensor("SCORE", scores.reshape(contents.shape))]
        )
