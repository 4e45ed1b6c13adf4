"""A model's complete Triton configuration: its own config.pbtxt, the overrides laid over it, and what is Ergon's. Pure.

Triton replaces its whole configuration by what a load carries, so Ergon always sends all of it. Overrides come from tenants:
they may tune a model, not name files, libraries or environments (those are the model directory's own business).
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from google.protobuf import json_format, text_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from tritonclient.grpc import model_config_pb2

from ergon.triton.errors import ConfigurationInvalid
from ergon.triton.overrides import check_override, field_named

REVISION_PARAMETER = "ergon_revision"

_ENSEMBLE = "ensemble"
_BACKEND_OF_PLATFORM = {
    _ENSEMBLE: _ENSEMBLE,
    "onnxruntime_onnx": "onnxruntime",
    "pytorch_libtorch": "pytorch",
    "tensorflow_graphdef": "tensorflow",
    "tensorflow_savedmodel": "tensorflow",
    "tensorrt_plan": "tensorrt",
}


class InstanceKind(StrEnum):
    """Where Triton runs a model's instances. KIND_MODEL leaves it to the model (TPUs and NPUs through their backends)."""

    CPU = "KIND_CPU"
    GPU = "KIND_GPU"
    MODEL = "KIND_MODEL"


def compose(
    config_pbtxt: str | None,
    override: Mapping[str, Any],
    *,
    name: str,
    backend: str,
    revision: str,
    default_kind: InstanceKind,
) -> dict[str, Any]:
    """The configuration that a load sends, as JSON-ready values with field names as in config.pbtxt.

    `config_pbtxt` is the file's text, None when the directory has none. `override` is the variant's `config` in the JSON form
    of ModelConfig, snake_case or camelCase: messages merge, maps merge by key, repeated fields are replaced. `name` and
    `revision` are set; `backend` is the variant's and must agree with the file. Instances without a kind get `default_kind`,
    so that Triton changes their number in place. Raises ConfigurationInvalid.
    """
    if config_pbtxt is None:
        raise ConfigurationInvalid(
            f"model {name}: the model directory has no config.pbtxt; Ergon starts Triton without auto-completion, "
            "so write a full config.pbtxt (backend, inputs, outputs)"
        )
    config = _parse_file(config_pbtxt, name)
    check_override(override, config.DESCRIPTOR, name)
    _lay_over(config, override, _parse_override(override, name))
    _set_backend(config, backend, name)
    _set_kind(config, default_kind)
    config.name = name
    config.parameters[REVISION_PARAMETER].string_value = revision
    fields: dict[str, Any] = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return fields


def instance_count(config: Mapping[str, Any]) -> int:
    """How many instances a composed configuration runs on one server (on one device where the kind is KIND_GPU)."""
    return sum(int(group.get("count", 1)) for group in config.get("instance_group", ())) or 1


def _parse_file(text: str, name: str) -> Any:
    try:
        return text_format.Parse(text, model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        reason = str(error).splitlines()[0].replace("inference.ModelConfig", "ModelConfig")
        raise ConfigurationInvalid(f"model {name}: config.pbtxt cannot be read, at line:column {reason}") from None


def _parse_override(override: Mapping[str, Any], name: str) -> Any:
    try:
        return json_format.ParseDict(dict(override), model_config_pb2.ModelConfig())
    except json_format.ParseError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        raise ConfigurationInvalid(
            f"model {name}: the variant's config is not what Triton's ModelConfig takes: {reason}"
        ) from None


def _lay_over(target: Message, written: Mapping[str, Any], parsed: Message) -> None:
    """Lay the fields that `written` names, with their values in `parsed`, over `target`.

    The names come from what was written, not from `parsed`: a protobuf message forgets that a 0 or "" was written.
    """
    for key, value in written.items():
        field = field_named(target.DESCRIPTOR, key)
        if field is None:
            continue  # ParseDict has refused it
        if value is None:
            target.ClearField(field.name)
        elif _is_map(field):
            _lay_over_map(getattr(target, field.name), value, getattr(parsed, field.name), field)
        elif field.is_repeated:
            target.ClearField(field.name)
            getattr(target, field.name).extend(getattr(parsed, field.name))
        elif field.message_type is not None:
            getattr(target, field.name).SetInParent()
            _lay_over(getattr(target, field.name), value, getattr(parsed, field.name))
        else:
            setattr(target, field.name, getattr(parsed, field.name))


def _lay_over_map(target: Any, written: Mapping[str, Any], parsed: Any, field: FieldDescriptor) -> None:
    holds_messages = field.message_type.fields_by_name["value"].message_type is not None
    for key in parsed:
        if holds_messages:
            _lay_over(target[key], written[str(key)], parsed[key])
        else:
            target[key] = parsed[key]


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _set_backend(config: Any, backend: str, name: str) -> None:
    written = config.backend or _BACKEND_OF_PLATFORM.get(config.platform, config.platform)
    if written and written != backend:
        raise ConfigurationInvalid(
            f"model {name}: the model directory's config.pbtxt says backend {written}, the variant says {backend}; "
            "correct the variant's backend or its source"
        )
    if backend == _ENSEMBLE:
        config.platform = _ENSEMBLE  # Triton knows ensembles by their platform alone, and looks a backend up on disk
        config.ClearField("backend")
    elif not config.platform:
        config.backend = backend


def _set_kind(config: Any, kind: InstanceKind) -> None:
    if config.WhichOneof("scheduling_choice") == "ensemble_scheduling":
        return  # an ensemble runs no instances of its own
    if not config.instance_group:
        config.instance_group.add(count=1)
    for group in config.instance_group:
        if group.kind == model_config_pb2.ModelInstanceGroup.KIND_AUTO:
            group.kind = model_config_pb2.ModelInstanceGroup.Kind.Value(kind.value)
