"""The OpenAPI description of the JSON, made from the models of the answers."""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from db.jobs import JobOrder
from worker import __version__
from worker.monitor.job_status import STATES
from worker.monitor.web.answers import (
    ActionRequest,
    ActionsAnswer,
    ErrorAnswer,
    JobAnswer,
    JobsAnswer,
    SystemHealth,
    WorkersAnswer,
)

_MODELS = (ActionRequest, ActionsAnswer, ErrorAnswer, JobAnswer, JobsAnswer, SystemHealth, WorkersAnswer)
_SCHEMAS = "#/components/schemas/"
_ID = {"name": "id", "in": "path", "required": True, "schema": {"type": "integer", "minimum": 1}}


def description() -> dict[str, Any]:
    """The description as OpenAPI 3.1."""
    _, schemas = models_json_schema(
        [(model, "serialization" if model is not ActionRequest else "validation") for model in _MODELS],
        ref_template=_SCHEMAS + "{model}",
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "dermq",
            "version": __version__,
            "description": "Jobs and workers of dermq, for pages and scripts. Sign in as for Flower. No answer holds "
            "patient data or a file name, except the rows that an operator downloads.",
        },
        "security": [{"password": []}],
        "paths": {
            "/api/dermq/jobs": {"get": _jobs()},
            "/api/dermq/jobs/{id}": {"get": _operation("One job", JobAnswer, parameters=[_ID], missing=True)},
            "/api/dermq/jobs/{id}/not-scored.csv": {"get": _rows()},
            "/api/dermq/actions": {"post": _actions()},
            "/api/dermq/workers": {"get": _operation("The workers and their processes", WorkersAnswer)},
            "/api/dermq/health": {"get": _operation("Whether the parts of dermq work", SystemHealth)},
            "/api/dermq/openapi.json": {"get": {"summary": "This description", "responses": {"200": _plain("JSON")}}},
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"password": {"type": "http", "scheme": "basic"}},
        },
    }


def _jobs() -> dict[str, Any]:
    parameters = [
        _query("state", {"type": "string", "enum": ["", *STATES]}, "only jobs in this state"),
        _query("search", {"type": "string"}, "text in the name, the source or the submitter, or the number"),
        _query("order", {"type": "string", "enum": [*JobOrder], "default": JobOrder.NEWEST}, "of the list"),
        _query("page", {"type": "integer", "minimum": 1, "default": 1}, "number of the page"),
        _query("size", {"type": "integer", "minimum": 1, "maximum": 200, "default": 25}, "jobs of a page"),
    ]
    return _operation("A page of the list of jobs", JobsAnswer, parameters=parameters)


def _rows() -> dict[str, Any]:
    operation = _operation("Images without a score, with their paths. For operators", None, parameters=[_ID])
    operation["responses"]["200"] = {
        "description": "CSV, as `dermq export` writes it",
        "content": {"text/csv": {"schema": {"type": "string"}}},
    }
    operation["responses"]["404"] = _refused("There is no such job")
    operation["responses"]["403"] = _refused("For operators only")
    return operation


def _actions() -> dict[str, Any]:
    operation = _operation("Pause, resume, cancel or retry jobs. For operators", ActionsAnswer)
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": {"$ref": f"{_SCHEMAS}ActionRequest"}}},
    }
    operation["responses"]["403"] = _refused("For operators only")
    operation["responses"]["415"] = _refused("The body is not JSON")
    return operation


def _operation(
    summary: str,
    model: type[BaseModel] | None,
    *,
    parameters: list[dict[str, Any]] | None = None,
    missing: bool = False,
) -> dict[str, Any]:
    responses: dict[str, Any] = {
        "400": _refused("An argument is wrong"),
        "401": _refused("Not signed in"),
        "429": _refused("Too many failed sign-ins"),
        "503": _refused("The database does not answer"),
    }
    if model is not None:
        schema = {"$ref": _SCHEMAS + model.__name__}
        responses["200"] = {"description": summary, "content": {"application/json": {"schema": schema}}}
    if missing:
        responses["404"] = _refused("There is no such job")
    return {"summary": summary, "parameters": parameters or [], "responses": responses}


def _query(name: str, schema: dict[str, Any], what: str) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema, "description": what}


def _refused(why: str) -> dict[str, Any]:
    schema = {"$ref": f"{_SCHEMAS}ErrorAnswer"}
    return {"description": why, "content": {"application/json": {"schema": schema}}}


def _plain(what: str) -> dict[str, Any]:
    return {"description": what}
