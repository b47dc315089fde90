"""The OpenAPI document of the routes that a server answers: GET /openapi.json.

https://spec.openapis.org/oas/v3.1.0
"""

from typing import Any

from container_serve import __version__
from container_serve.codec.media import ANSWER_TYPES, IMAGE_TYPES, JSON, JSON_LINES
from container_serve.settings import Settings

Json = dict[str, Any]
TEXT: Json = {"type": "string"}
WHOLE: Json = {"type": "integer"}
ANY: Json = {}
ERROR: Json = {"$ref": "#/components/schemas/Error"}


def document(settings: Settings) -> Json:
    """Return the document of a server with these settings."""
    health = _object(state=TEXT, workers=WHOLE, in_flight=WHOLE, failing={"type": "boolean"})
    limits = _object(MaxConcurrentTransforms=WHOLE, BatchStrategy=TEXT, MaxPayloadInMB=WHOLE)
    model = _object(name=TEXT, path=TEXT)  # all that is known of one with a program of the user's own
    model["properties"] |= {"architecture": TEXT, "precision": TEXT, "classes": _list(TEXT), "preprocessing": ANY}
    model["properties"] |= {"accuracy": ANY, "accuracy_interval": ANY, "images": ANY}
    info = _object(version=TEXT, max_request_bytes=WHOLE, timeout_seconds=WHOLE, models=_list(model))
    rows: list[tuple[str, str, str, Json, Json]] = [  # methods, path, summary, schemas of the answer, all else
        ("get head", "/ping", "Health: 503 while no request would be answered", {JSON: health}, {}),
        ("get", "/execution-parameters", "What batch transform may send", {JSON: limits}, {}),
        ("get head", "/", "A page to try the model", {"text/html": TEXT}, {}),
        ("get head", "/info", "The models and the server's limits", {JSON: info}, {}),
        ("get head", "/metrics", "Counters and gauges for Prometheus", {"text/plain": TEXT}, {}),
        ("get head", "/openapi.json", "This document", {JSON: {"type": "object"}}, {}),
        *(_several_models() if settings.multi_model else ()),
        _predict("/models/{name}/invoke" if settings.multi_model else "/invocations"),
    ]
    paths: dict[str, Json] = {}
    failed = {"description": "The request failed; `message` says why.", "content": {JSON: {"schema": ERROR}}}
    for methods, path, summary, schemas, more in rows:
        done = {"description": "Done.", "content": {kind: {"schema": schema} for kind, schema in schemas.items()}}
        for method in methods.split():
            operation = {"summary": summary, "responses": {"200": done, "default": failed}, **more}
            paths.setdefault(path, {})[method] = operation
        if "{name}" in path:
            paths[path]["parameters"] = [_parameter("path", "name", TEXT)]
    return {
        "openapi": "3.1.0",
        "info": {"title": "Image classifier", "version": __version__},
        "paths": paths,
        "components": {"schemas": {"Error": _object(code=WHOLE, type=TEXT, message=TEXT)}},
    }


def _object(**properties: Json) -> Json:
    return {"type": "object", "required": list(properties), "properties": properties}


def _list(items: Json) -> Json:
    return {"type": "array", "items": items}


def _parameter(place: str, name: str, schema: Json) -> Json:
    return {"name": name, "in": place, "required": place == "path", "schema": schema}


def _predict(path: str) -> tuple[str, str, str, Json, Json]:
    top_k = {**WHOLE, "minimum": 1, "maximum": 1000, "default": 5}
    instances = _object(instances={**_list(_object(b64={**TEXT, "contentEncoding": "base64"})), "maxItems": 64})
    instances["properties"]["top_k"] = top_k
    bodies: dict[str, Json] = {kind: ANY for kind in (*IMAGE_TYPES, JSON_LINES)}
    bodies |= {"multipart/form-data": {"schema": _object(file=ANY)}, JSON: {"schema": instances}}
    predictions = _list(_object(index=WHOLE, label=TEXT, probability={"type": "number"}))
    several = _list({"anyOf": [predictions, _object(error=ERROR)]})  # for `instances`
    answer = _object(predictions={"anyOf": [predictions, several]}, model={"type": "object"})
    schemas = {kind: answer if kind == JSON else TEXT for kind in ANSWER_TYPES}
    attributes = _parameter("header", "X-Amzn-SageMaker-Custom-Attributes", {**TEXT, "examples": ["top_k=3"]})
    more = {"parameters": [attributes], "requestBody": {"required": True, "content": bodies}}
    return "post", path, "The most probable classes of one image, or of several", schemas, more


def _several_models() -> list[tuple[str, str, str, Json, Json]]:
    model, done = _object(modelName=TEXT, modelUrl=TEXT), _object(status=TEXT)
    pages = {"parameters": [_parameter("query", name, WHOLE) for name in ("limit", "next_page_token")]}
    load = {"required": True, "content": {JSON: {"schema": _object(model_name=TEXT, url=TEXT)}}}
    return [
        ("get", "/models", "The loaded models", {JSON: _object(models=_list(model))}, pages),
        ("post", "/models", "Load a model from a folder of the server", {JSON: done}, {"requestBody": load}),
        ("get", "/models/{name}", "One of the loaded models", {JSON: model}, {}),
        ("delete", "/models/{name}", "Unload a model", {JSON: done}, {}),
    ]
