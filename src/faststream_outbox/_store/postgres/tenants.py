"""Where a table is, for engines and sessions that translate its schema into a tenant's."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import MetaData, Table
from sqlalchemy.ext.asyncio import AsyncEngine


def schema_in(options: Mapping[str, Any], schema: str | None) -> str | None:
    """Return the schema that execution options make of a table's: their ``schema_translate_map`` is SQLAlchemy's."""
    translations = options.get("schema_translate_map")
    return translations.get(schema, schema) if translations else schema


def translated(table: Table, engine: AsyncEngine) -> Table:
    """Return the table as the engine's own ``schema_translate_map`` has it.

    SQLAlchemy translates statements that it writes itself, and not those in ``queries``.
    """
    return in_schema(table, schema_in(engine.get_execution_options(), table.schema))


def in_schema(table: Table, schema: str | None) -> Table:
    """Return the table as it is in another schema."""
    if schema == table.schema:
        return table
    return table.to_metadata(MetaData(), schema=schema)  # type: ignore[arg-type]  # None is documented, and not typed
