"""Totals of chunks and of groups of chunks, and a prediction's job, so that no look at a job reads all its rows."""

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

#: As in `db.totals` at the time of this migration.
_GROUP_CHUNKS = 256
_BINS = 50
_NUMBERS = ("scored", "ungradable", "failed", "high_risk", "borderline", "lower_priority", "reused")
_DETAILS = ("failure_codes", "ungradable_reasons", "histogram")
_INDEXES = (
    ("chunk", ["job_id", "status"], ["job_id", "status", "hinted_at"]),
    ("image", ["job_id", "status"], ["job_id", "status", "id"]),
    ("prediction", ["image_sha256", "bundle_id"], ["image_sha256", "bundle_id", "id"]),
)


def upgrade() -> None:
    op.create_table(
        "chunk_group",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("images", sa.Integer(), nullable=False),
        sa.Column("settled", sa.Boolean(), server_default=sa.true(), nullable=False),
        *_totals(),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_chunk_group_job_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_chunk_group"),
    )
    for column in _totals():
        op.add_column("chunk", column)
    _add_reference("chunk", "group_id", "chunk_group")
    _add_reference("prediction", "job_id", "job")
    for table, old, new in _INDEXES:
        op.drop_index(_index(table, old), table)
        op.create_index(_index(table, new), table, new)
    op.execute("UPDATE prediction SET job_id = (SELECT image.job_id FROM image WHERE image.id = prediction.image_id)")
    op.create_index(_index("chunk", ["group_id", "status"]), "chunk", ["group_id", "status"])
    _fill()
    op.create_index(_index("chunk_group", ["job_id", "settled"]), "chunk_group", ["job_id", "settled"])
    worklist = ["job_id", "probability", "image_id"]
    op.create_index(_index("prediction", worklist), "prediction", worklist)


def downgrade() -> None:
    op.drop_index(_index("prediction", ["job_id", "probability", "image_id"]), "prediction")
    op.drop_index(_index("chunk", ["group_id", "status"]), "chunk")
    for table, old, new in _INDEXES:
        op.drop_index(_index(table, new), table)
        op.create_index(_index(table, old), table, old)
    op.drop_column("prediction", "job_id")
    for column in ("group_id", *(column.name for column in _totals())):
        op.drop_column("chunk", column)
    op.drop_table("chunk_group")


def _totals() -> list[sa.Column[Any]]:
    numbers = [sa.Column(name, sa.Integer(), server_default="0", nullable=False) for name in _NUMBERS]
    return [
        *numbers,
        sa.Column("last_completed_at", sa.DateTime(timezone=True), nullable=True),
        *(sa.Column(name, sa.JSON(), nullable=True) for name in _DETAILS),
    ]


def _index(table: str, columns: list[str]) -> str:
    return f"ix_{table}_{'_'.join(columns)}"


def _add_reference(table: str, column: str, other: str) -> None:
    kind = "INTEGER" if op.get_bind().dialect.name == "sqlite" else "BIGINT"
    # By hand: Alembic's way for SQLite copies the table, and dropping the old copy would cascade into other tables.
    op.execute(f"ALTER TABLE {table} ADD COLUMN {column} {kind} CONSTRAINT fk_{table}_{column} REFERENCES {other} (id)")


def _fill() -> None:
    """Put the chunks that are there into groups, and count their images."""
    connection = op.get_bind()
    jobs = list(connection.scalars(sa.text("SELECT id FROM job ORDER BY id")))
    for job_id in jobs:
        query = sa.text("SELECT id, size FROM chunk WHERE job_id = :job ORDER BY id")
        chunks = [tuple(row) for row in connection.execute(query, {"job": job_id})]
        for start in range(0, len(chunks), _GROUP_CHUNKS):
            part = chunks[start : start + _GROUP_CHUNKS]
            group_id = connection.execute(
                sa.text(
                    "INSERT INTO chunk_group (job_id, chunks, images, settled) "
                    "VALUES (:job, :chunks, :images, :settled) RETURNING id"
                ),
                {"job": job_id, "chunks": len(part), "images": sum(size for _, size in part), "settled": False},
            ).scalar_one()
            _fill_group(connection, group_id, [chunk_id for chunk_id, _ in part])


def _fill_group(connection: sa.Connection, group_id: int, chunk_ids: list[int]) -> None:
    whole = _Counts()
    for chunk_id in chunk_ids:
        counts = _Counts()
        query = sa.text(
            "SELECT image.status, image.failure_code, image.ungradable_reason, image.completed_at, prediction.flag, "
            "prediction.reused, prediction.probability FROM image LEFT JOIN prediction "
            "ON prediction.image_id = image.id WHERE image.chunk_id = :chunk"
        )
        for row in connection.execute(query, {"chunk": chunk_id}).mappings():
            counts.add(row)
            whole.add(row)
        _write(connection, "chunk", chunk_id, {"group_id": group_id, **counts.values()})
    query = sa.text("SELECT count(*) FROM chunk WHERE group_id = :group AND status = 'leased'")
    leased = connection.execute(query, {"group": group_id}).scalar_one()
    if not leased:
        # The totals of waiting chunks hold, too.
        _write(connection, "chunk_group", group_id, {"settled": True, **whole.values()})


def _write(connection: sa.Connection, table: str, row_id: int, values: Mapping[str, object]) -> None:
    assigned = ", ".join(f"{name} = :{name}" for name in values)
    statement = sa.text(f"UPDATE {table} SET {assigned} WHERE id = :row_id")  # noqa: S608 - constants above
    typed = statement.bindparams(*(sa.bindparam(name, type_=sa.JSON(none_as_null=True)) for name in _DETAILS))
    connection.execute(typed, {**values, "row_id": row_id})


class _Counts:
    """Outcomes of some images."""

    def __init__(self) -> None:
        self._numbers = dict.fromkeys(_NUMBERS, 0)
        self._codes: dict[str, dict[str, int]] = {"failure_codes": {}, "ungradable_reasons": {}}
        self._histogram = [0] * _BINS
        self._newest: Any = None

    def add(self, row: Mapping[Any, Any]) -> None:
        if row["status"] == "waiting":
            return
        if row["completed_at"] is not None and (self._newest is None or row["completed_at"] > self._newest):
            self._newest = row["completed_at"]
        self._numbers[row["status"]] += 1
        for column, code in (("failure_codes", "failure_code"), ("ungradable_reasons", "ungradable_reason")):
            if row["status"] != "scored" and row[code] is not None:
                self._codes[column][row[code]] = self._codes[column].get(row[code], 0) + 1
        if row["status"] == "scored" and row["flag"] is not None:
            self._numbers[row["flag"]] += 1
            self._numbers["reused"] += bool(row["reused"])
            self._histogram[min(int(row["probability"] * _BINS), _BINS - 1)] += 1

    def values(self) -> dict[str, object]:
        return {
            **self._numbers,
            "last_completed_at": self._newest,
            **{column: codes or None for column, codes in self._codes.items()},
            "histogram": self._histogram if any(self._histogram) else None,
        }
