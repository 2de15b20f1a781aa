"""Standard terms in columns and values, and no CHECK of enum values: each new input format brings new codes."""

import re

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

#: Table, old column, new column.
_COLUMNS = (
    ("job", "borderline_from", "borderline_threshold"),
    ("image", "modified_ns", "mtime_ns"),
    ("image", "careful_starts", "isolation_starts"),
    ("image", "ended_at", "completed_at"),
)
#: Table, column, old value, new value.
_VALUES = (
    ("prediction", "flag", "low_risk", "lower_priority"),
    ("image", "ungradable_reason", "unlike_dermoscopy", "out_of_distribution"),
)
#: The CHECKs of earlier migrations, by table.
_CHECKS = {
    "job": ("ck_job_jobstatus",),
    "chunk": ("ck_chunk_chunkstatus",),
    "image": ("ck_image_imagestatus", "ck_image_failurecode", "ck_image_ungradablereason"),
    "prediction": ("ck_prediction_triageflag",),
    "audit_entry": ("ck_audit_entry_auditaction",),
}


def upgrade() -> None:
    for table, names in _CHECKS.items():
        if op.get_bind().dialect.name == "sqlite":
            _drop_sqlite_checks(table, names)
        else:
            for name in names:
                # It is missing where this migration was taken back and is made again.
                op.execute(f"ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {name}")
    for table, old, new in _COLUMNS:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}")
    for table, column, old, new in _VALUES:
        op.execute(f"UPDATE {table} SET {column} = '{new}' WHERE {column} = '{old}'")  # noqa: S608 - constants above


def downgrade() -> None:
    # Without the CHECKs: a value that a newer version wrote would break them.
    for table, column, old, new in _VALUES:
        op.execute(f"UPDATE {table} SET {column} = '{old}' WHERE {column} = '{new}'")  # noqa: S608 - constants above
    for table, old, new in _COLUMNS:
        op.execute(f"ALTER TABLE {table} RENAME COLUMN {new} TO {old}")


def _drop_sqlite_checks(table: str, names: tuple[str, ...]) -> None:
    """Take the CHECKs out of the table's definition, as SQLite's manual describes (ALTER TABLE, section 7).

    Alembic's way copies the table and drops the old copy, which would cascade into the rows that refer to it.
    """
    connection = op.get_bind()
    before = connection.execute(
        sa.text("SELECT sql FROM sqlite_master WHERE type = 'table' AND name = :table"), {"table": table}
    ).scalar_one()
    after = before
    for name in names:
        after, found = re.subn(rf",\s*CONSTRAINT {name} CHECK \([^()]*\([^()]*\)\)", "", after)
        # It is missing where this migration was taken back and is made again.
        if found != 1 and name in before:
            raise RuntimeError(f"The table {table} has no constraint {name} as dermq made it.")
    connection.exec_driver_sql("PRAGMA writable_schema=ON")
    try:
        connection.execute(
            sa.text("UPDATE sqlite_master SET sql = :sql WHERE type = 'table' AND name = :table"),
            {"sql": after, "table": table},
        )
        version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
        connection.exec_driver_sql(f"PRAGMA schema_version={version + 1}")
    finally:
        # Also reads the definitions anew, for the statements that follow.
        connection.exec_driver_sql("PRAGMA writable_schema=RESET")
