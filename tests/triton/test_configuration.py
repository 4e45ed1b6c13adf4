"""Overrides are laid over a model's config.pbtxt so that nothing of the file is lost and nothing unsafe gets in."""

import json
from typing import Any

import pytest
from google.protobuf import json_format, text_format
from hypothesis import given
from hypothesis import strategies as st
from tritonclient.grpc import model_config_pb2

from ergon.triton import ConfigurationInvalid, InstanceKind, compose
from ergon.triton.configuration import instance_count

FILE = """
name: "someone-elses-name"
backend: "onnxruntime"
max_batch_size: 8
input [
  { name: "input/ids:0" data_type: TYPE_INT64 dims: [ -1 ] },
  { name: "mask" data_type: TYPE_INT64 dims: [ -1 ] }
]
output [{ name: "/model/Softmax_output_0" data_type: TYPE_FP32 dims: [ 9 ] }]
instance_group [{ count: 2 kind: KIND_CPU }]
dynamic_batching { max_queue_delay_microseconds: 500 preferred_batch_size: [ 4, 8 ] }
parameters [{ key: "intra_op_thread_count" value: { string_value: "1" } }]
default_model_filename: "model.int8.onnx"
"""


def composed(override: dict[str, Any] | None = None, text: str | None = FILE, **changes: Any) -> dict[str, Any]:
    settings = {"name": "t.ner", "backend": "onnxruntime", "revision": "3", "default_kind": InstanceKind.CPU} | changes
    return compose(text, override or {}, **settings)


def refusal(override: dict[str, Any], **changes: Any) -> str:
    with pytest.raises(ConfigurationInvalid) as refused:
        composed(override, **changes)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_file_stands_where_nothing_overrides_it() -> None:
    config = composed()
    assert config["name"] == "t.ner"
    assert config["default_model_filename"] == "model.int8.onnx"
    assert config["parameters"] == {"intra_op_thread_count": {"string_value": "1"}, "ergon_revision": {"string_value": "3"}}
    assert config["instance_group"] == [{"count": 2, "kind": "KIND_CPU"}]
    assert json.loads(json.dumps(config)) == config


def test_messages_merge_maps_merge_by_key_and_lists_are_replaced() -> None:
    config = composed(
        {
            "dynamic_batching": {"max_queue_delay_microseconds": 100},
            "parameters": {"intra_op_thread_count": {"string_value": "4"}, "execution_mode": {"string_value": "0"}},
            "instance_group": [{"count": 1, "kind": "KIND_CPU"}],
        }
    )
    assert config["dynamic_batching"] == {"max_queue_delay_microseconds": "100", "preferred_batch_size": [4, 8]}
    assert {key: value["string_value"] for key, value in config["parameters"].items()} == {
        "intra_op_thread_count": "4",
        "execution_mode": "0",
        "ergon_revision": "3",
    }
    assert config["instance_group"] == [{"count": 1, "kind": "KIND_CPU"}]


def test_camel_case_means_the_same() -> None:
    snake = composed({"max_batch_size": 2, "dynamic_batching": {"preferred_batch_size": [2]}})
    assert composed({"maxBatchSize": 2, "dynamicBatching": {"preferredBatchSize": [2]}}) == snake


def test_a_zero_overrides_too() -> None:
    assert "max_batch_size" not in composed({"max_batch_size": 0})
    assert (
        "max_queue_delay_microseconds"
        not in composed({"dynamic_batching": {"max_queue_delay_microseconds": 0}})["dynamic_batching"]
    )


def test_null_takes_a_field_away() -> None:
    assert "dynamic_batching" not in composed({"dynamic_batching": None})


def test_an_empty_message_switches_a_feature_on() -> None:
    text = FILE.replace("dynamic_batching { max_queue_delay_microseconds: 500 preferred_batch_size: [ 4, 8 ] }", "")
    assert "dynamic_batching" not in composed(text=text)
    assert composed({"dynamic_batching": {}}, text=text)["dynamic_batching"] == {}


def test_one_choice_replaces_the_other() -> None:
    config = composed({"sequence_batching": {"max_sequence_idle_microseconds": 5}, "version_policy": {"all": {}}})
    assert "dynamic_batching" not in config
    assert config["version_policy"] == {"all": {}}


@pytest.mark.parametrize("group", ["", "instance_group [{ count: 3 }]"])
def test_instances_always_have_a_kind(group: str) -> None:
    text = FILE.replace("instance_group [{ count: 2 kind: KIND_CPU }]", group)
    config = composed(text=text, default_kind=InstanceKind.GPU)
    assert config["instance_group"] == [{"count": 3 if group else 1, "kind": "KIND_GPU"}]
    assert instance_count(config) == (3 if group else 1)


def test_a_missing_file_says_what_to_write() -> None:
    assert "without auto-completion, so write a full config.pbtxt" in refusal({}, text=None)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('backend: "python"\nfoo: 1', 'line:column 2:1 : Message type "ModelConfig" has no field named "foo"'),
        ('backend: "python', "config.pbtxt cannot be read"),
    ],
)
def test_a_file_that_is_no_model_config_says_where(text: str, says: str) -> None:
    assert says in refusal({}, text=text)


def test_the_backend_must_be_the_variants() -> None:
    says = "the model directory's config.pbtxt says backend onnxruntime, the variant says python"
    assert says in refusal({}, backend="python")


@pytest.mark.parametrize(
    ("platform", "backend"),
    [
        ("onnxruntime_onnx", "onnxruntime"),
        ("tensorrt_plan", "tensorrt"),
        ("pytorch_libtorch", "pytorch"),
        ("ensemble", "ensemble"),
    ],
)
def test_a_platform_stands_for_its_backend(platform: str, backend: str) -> None:
    text = FILE.replace('backend: "onnxruntime"', f'platform: "{platform}"')
    assert composed(text=text, backend=backend)["platform"] == platform
    assert f"says backend {backend}, the variant says openvino" in refusal({}, text=text, backend="openvino")


@pytest.mark.parametrize("written", ["", 'backend: "ensemble"', 'platform: "ensemble"'])
def test_an_ensemble_is_known_by_its_platform(written: str) -> None:
    config = composed(text=FILE.replace('backend: "onnxruntime"', written), backend="ensemble")
    assert config["platform"] == "ensemble"
    assert "backend" not in config


def test_a_file_without_a_backend_gets_the_variants() -> None:
    assert composed(text=FILE.replace('backend: "onnxruntime"', ""))["backend"] == "onnxruntime"


@pytest.mark.parametrize(
    ("override", "says"),
    [
        ({"name": "other"}, "config.name is set by Ergon"),
        ({"backend": "python"}, "config.backend is set by Ergon"),
        ({"platform": "x"}, "config.platform is set by Ergon"),
        ({"runtime": "libevil.so"}, "config.runtime decides what code Triton runs"),
        ({"modelOperations": {"op_library_filename": ["/tmp/x.so"]}}, "config.modelOperations decides what code"),
        ({"model_repository_agents": {"agents": [{"name": "x"}]}}, "config.model_repository_agents decides what code"),
        ({"default_model_filename": "../../other/1/model.py"}, "config.default_model_filename names a file"),
        ({"cc_model_filenames": {"7.5": "x"}}, "config.cc_model_filenames names a file"),
        ({"output": [{"name": "Y", "label_filename": "/etc/passwd"}]}, "config.output[0].label_filename names a file"),
        (
            {"model_warmup": [{"name": "w", "inputs": {"X": {"input_data_file": "../x"}}}]},
            "config.model_warmup[0].inputs.X.input_data_file names a file",
        ),
        (
            {"parameters": {"EXECUTION_ENV_PATH": {"string_value": "e.tar.gz"}}},
            "config.parameters.EXECUTION_ENV_PATH is not among",
        ),
        ({"parameters": {"TRITON_X": {"string_value": "1"}}}, "config.parameters.TRITON_X is not among"),
        ({"parameters": {"ergon_revision": {"string_value": "1"}}}, "config.parameters.ergon_revision is not among"),
        ({"parameters": {"tokenizer_dir": {"string_value": "x"}}}, "config.parameters.tokenizer_dir is not among"),
        ({"parameters": {"weights": {"string_value": "/models/other/1/w"}}}, "config.parameters.weights may not hold a path"),
        ({"parameters": {"weights": {"string_value": ".."}}}, "config.parameters.weights may not hold a path"),
        ({"parameters": {"weights": {"stringValue": "$HOME"}}}, "config.parameters.weights may not hold a path"),
        ({"parameters": {"threads": "4"}}, 'config.parameters.threads must be written as {string_value: "4"}'),
        ({"parameters": None}, "config.parameters cannot be removed as a whole"),
        (
            {"optimization": {"execution_accelerators": {"gpu_execution_accelerator": [{"parameters": {"cache": "/tmp"}}]}}},
            "gpu_execution_accelerator[0].parameters.cache may not hold a path",
        ),
        ({"max_batchsize": 4}, "config.max_batchsize is no field of Triton's ModelConfig"),
        ({"dynamic_batching": {"delay": 4}}, "config.dynamic_batching.delay is no field of Triton's ModelDynamicBatching"),
        ({"max_batch_size": 1, "maxBatchSize": 2}, "config.maxBatchSize stands there twice, also as max_batch_size"),
        ({"max_batch_size": "many"}, "max_batch_size"),
        ({"dynamic_batching": 3}, "dynamic_batching"),
        ({"instance_group": {"count": 1}}, "instance_group"),
    ],
)
def test_what_an_override_may_not_say(override: dict[str, Any], says: str) -> None:
    message = refusal(override)
    assert says in message
    assert message.startswith("model t.ner: ")


def test_tensor_names_with_slashes_are_no_paths() -> None:
    override = {"input": [{"name": "input/ids:0", "data_type": "TYPE_INT32", "dims": [128]}]}
    assert composed(override)["input"][0]["name"] == "input/ids:0"


@pytest.mark.parametrize(
    "key", ["INTRA_OP_THREAD_COUNT", "enable_mem_arena", "memory.enable_memory_arena_shrinkage", "max_tokens"]
)
def test_parameters_that_tune_are_allowed(key: str) -> None:
    assert composed({"parameters": {key: {"string_value": "1"}}})["parameters"][key] == {"string_value": "1"}


words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=1, max_size=8).map(lambda word: f"k_{word}x")
parameters = st.dictionaries(words, st.text("abc 0123.,:-", max_size=6).filter(lambda text: ".." not in text), max_size=4).map(
    lambda values: {key: {"string_value": value} for key, value in values.items()}
)
batching = st.fixed_dictionaries(
    {},
    optional={
        "max_queue_delay_microseconds": st.integers(0, 2**63),
        "preferred_batch_size": st.lists(st.integers(1, 64), max_size=3),
        "preserve_ordering": st.booleans(),
        "default_queue_policy": st.fixed_dictionaries({}, optional={"max_queue_size": st.integers(0, 2**32 - 1)}),
        "priority_queue_policy": st.dictionaries(
            st.integers(1, 5).map(str), st.fixed_dictionaries({"max_queue_size": st.integers(0, 9)}), max_size=2
        ),
    },
)
tensors = st.lists(
    st.fixed_dictionaries({"name": words, "data_type": st.sampled_from(["TYPE_FP32", "TYPE_STRING"]), "dims": st.just([1])}),
    max_size=2,
)
overrides = st.fixed_dictionaries(
    {},
    optional={
        "max_batch_size": st.integers(0, 128),
        "dynamic_batching": batching,
        "parameters": parameters,
        "input": tensors,
        "instance_group": st.lists(st.fixed_dictionaries({"count": st.integers(1, 4), "kind": st.just("KIND_CPU")}), max_size=2),
        "metric_tags": st.dictionaries(words, words, max_size=2),
        "response_cache": st.fixed_dictionaries({"enable": st.booleans()}),
        "optimization": st.fixed_dictionaries(
            {}, optional={"eager_batching": st.booleans(), "priority": st.just("PRIORITY_MAX")}
        ),
    },
)


def as_text(override: dict[str, Any]) -> str:
    """A config.pbtxt that says what an override says."""
    message = json_format.ParseDict(override, model_config_pb2.ModelConfig(backend="onnxruntime"))
    return str(text_format.MessageToString(message))


@given(file=overrides, override=overrides)
def test_laying_the_same_override_twice_changes_nothing(file: dict[str, Any], override: dict[str, Any]) -> None:
    once = composed(override, text=as_text(file))
    again = json_format.ParseDict(once, model_config_pb2.ModelConfig())
    assert composed(override, text=text_format.MessageToString(again)) == once


@given(file=overrides, override=overrides)
def test_what_the_override_says_wins_and_the_rest_is_the_files(file: dict[str, Any], override: dict[str, Any]) -> None:
    before, after = composed(text=as_text(file)), composed(override, text=as_text(file))
    alone = composed(override, text='backend: "onnxruntime"')
    for key in ("max_batch_size", "input", "response_cache"):
        assert after.get(key) == (alone if key in override else before).get(key)
    for key in ("parameters", "metric_tags"):
        assert after.get(key, {}) == before.get(key, {}) | alone.get(key, {})
    for key in ("dynamic_batching", "optimization"):
        for field in {*before.get(key, {}), *after.get(key, {})} - {"default_queue_policy", "priority_queue_policy"}:
            says = alone if field in override.get(key, {}) else before
            assert after[key].get(field) == says.get(key, {}).get(field)


@given(file=overrides)
def test_no_field_of_the_file_is_lost(file: dict[str, Any]) -> None:
    message = json_format.ParseDict(file, model_config_pb2.ModelConfig(backend="onnxruntime"))
    message.name = "t.ner"
    message.parameters["ergon_revision"].string_value = "3"
    if not message.instance_group:
        message.instance_group.add(count=1, kind=model_config_pb2.ModelInstanceGroup.KIND_CPU)
    assert json_format.ParseDict(composed(text=as_text(file)), model_config_pb2.ModelConfig()) == message
