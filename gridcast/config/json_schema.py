"""The settings as a JSON Schema (draft 2020-12), by which editors complete and check the YAML."""

from __future__ import annotations

from typing import Any

from gridcast.config.schema import Config


def json_schema() -> dict[str, Any]:
    """What `load_config` accepts, as far as a schema can say it.

    It refuses nothing that `load_config` accepts. What spans several settings (the order of the
    splits, settings that contradict each other) `load_config` alone knows, and JSON takes 3.0 for a
    whole number.
    """
    schema = Config.model_json_schema()
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, **schema, "title": "an experiment of gridcast"}
