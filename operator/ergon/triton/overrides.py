"""What a tenant's `config` may not say: a walk over the override as it was written, before it is laid over a file. Pure."""

import re
from collections.abc import Mapping
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from ergon.triton.errors import ConfigurationInvalid

# Fields that are Ergon's (it sets them itself), or that make Triton run code of someone's choice.
_OURS = {"name", "backend", "platform"}
_CODE = {"runtime", "model_operations", "model_repository_agents"}
# Fields that hold a path: default_model_filename, label_filename, data_file, op_library_filename, ...
_PATH_FIELD = re.compile(r"(^|_)(file|filenames?|path|dir|directory|library)(_|$)")
# Parameters that backends document as tuning. Others must be lower-case words: those that models read for themselves.
_BACKEND_PARAMETERS = {
    "DISABLE_CUDNN",
    "DISABLE_OPTIMIZED_EXECUTION",
    "ENABLE_CACHE_CLEANING",
    "ENABLE_JIT_EXECUTOR",
    "ENABLE_JIT_PROFILING",
    "ENABLE_NVFUSER",
    "ENABLE_TENSOR_FUSER",
    "ENABLE_WEIGHT_SHARING",
    "FORCE_CPU_ONLY_INPUT_TENSORS",
    "INFERENCE_MODE",
    "INFERENCE_NUM_THREADS",
    "INTER_OP_THREAD_COUNT",
    "INTRA_OP_THREAD_COUNT",
    "NUM_STREAMS",
    "PERFORMANCE_HINT",
}
_OWN_PARAMETER = re.compile(r"[a-z][a-z0-9_.-]{0,62}")
_PATH_WORD = re.compile(r"(^|[_.-])(file|filename|path|dir|directory|library|lib|env|executable)([_.-]|$)")
_RESERVED_PARAMETER = re.compile(r"(ergon|triton)[_.-].*", re.IGNORECASE)
_UNSAFE_VALUE = re.compile(r"[/\\\x00-\x1f]|\.\.|\$")


def field_named(message: Descriptor, key: str) -> FieldDescriptor | None:
    """The field that `key` names in snake_case or camelCase, as protobuf's own JSON reader finds it."""
    return message.fields_by_camelcase_name.get(key) or message.fields_by_name.get(key)


def check_override(override: Mapping[str, Any], message: Descriptor, model: str) -> None:
    """Raise ConfigurationInvalid where the override names what is Ergon's, a path, or a parameter that is not allowed."""
    for key in override:
        field = field_named(message, key)
        if field is not None and field.name in _OURS:
            raise _refused(model, key, "is set by Ergon; leave it out")
        if field is not None and field.name in _CODE:
            raise _refused(model, key, "decides what code Triton runs; write it in the model directory's config.pbtxt")
    _walk(override, message, "", model)


def _walk(written: Any, message: Descriptor, place: str, model: str) -> None:
    if not isinstance(written, Mapping):
        return  # the wrong type here is ParseDict's to refuse
    seen: dict[str, str] = {}
    for key, value in written.items():
        field = field_named(message, key)
        here = f"{place}.{key}" if place else str(key)
        if field is None:
            raise _refused(model, here, f"is no field of Triton's {message.name}")
        if field.name in seen:
            raise _refused(model, here, f"stands there twice, also as {seen[field.name]}")
        seen[field.name] = key
        if _PATH_FIELD.search(field.name):
            raise _refused(model, here, "names a file; write it in the model directory's config.pbtxt")
        if field.name == "parameters":
            _check_parameters(value, here, model)
        elif field.message_type is not None:
            _walk_messages(value, field, here, model)


def _walk_messages(value: Any, field: FieldDescriptor, place: str, model: str) -> None:
    if field.message_type.GetOptions().map_entry:
        inner = field.message_type.fields_by_name["value"].message_type
        if inner is not None and isinstance(value, Mapping):
            for key, item in value.items():
                _walk(item, inner, f"{place}.{key}", model)
    elif field.is_repeated:
        for number, item in enumerate(value if isinstance(value, list) else ()):
            _walk(item, field.message_type, f"{place}[{number}]", model)
    else:
        _walk(value, field.message_type, place, model)


def _check_parameters(parameters: Any, place: str, model: str) -> None:
    if parameters is None:
        raise _refused(model, place, "cannot be removed as a whole; name the parameters to change")
    if not isinstance(parameters, Mapping):
        return
    for key, value in parameters.items():
        here = f"{place}.{key}"
        if not _parameter_allowed(str(key)):
            raise _refused(model, here, "is not among the parameters that may be overridden; write it in config.pbtxt")
        if isinstance(value, Mapping):
            value = value.get("string_value", value.get("stringValue"))
        elif place == "parameters":
            raise _refused(model, here, f'must be written as {{string_value: "{value}"}}')
        if isinstance(value, str) and _UNSAFE_VALUE.search(value):
            raise _refused(model, here, "may not hold a path (/ \\ .. $); write it in the model directory's config.pbtxt")


def _parameter_allowed(key: str) -> bool:
    if key in _BACKEND_PARAMETERS:
        return True
    return bool(_OWN_PARAMETER.fullmatch(key)) and not _PATH_WORD.search(key) and not _RESERVED_PARAMETER.fullmatch(key)


def _refused(model: str, place: str, why: str) -> ConfigurationInvalid:
    return ConfigurationInvalid(f"model {model}: the variant's config.{place} {why}")
