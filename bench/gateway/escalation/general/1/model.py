"""The language of a text, told by lingua with all its languages, whose package lies beside this file."""

import sys
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb

sys.path.insert(0, str(Path(__file__).with_name("site")))
from lingua import LanguageDetectorBuilder


class TritonPythonModel:
    def initialize(self, args):
        self.detector = LanguageDetectorBuilder.from_all_languages().with_preloaded_language_models().build()

    def execute(self, requests):
        return [self.answer(pb.get_input_tensor_by_name(request, "TEXT").as_numpy()) for request in requests]

    def answer(self, texts):
        found = [self.detector.detect_language_of(text.decode("utf-8", "replace")) for text in texts.reshape(-1)]
        codes = [language.iso_code_639_1.name.lower() if language else "und" for language in found]
        return pb.InferenceResponse(
            [pb.Tensor("LANGUAGE", np.array([c.encode() for c in codes], dtype=object).reshape(texts.shape))]
        )
