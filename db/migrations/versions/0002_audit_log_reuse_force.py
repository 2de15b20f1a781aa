"""Audit log; predictions that were reused; jobs that score anew whatever is known."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ACTIONS = ("submitted", "finished", "paused", "resumed", "cancelled", "retried", "exported", "deleted")


def upgrade() -> None:
    op.create_table(
        "audit_entry",
        sa.Column(
            "number",
            sa.BigInteger().with_variant(sa.Integer(), "sqlite"),
            autoincrement=False,
            nullable=False,
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=200), nullable=False),
        sa.Column(
            "action",
            sa.Enum(*ACTIONS, name="auditaction", native_enum=False, create_constraint=True, length=32),
            nullable=False,
        ),
        sa.Column("job_id", sa.BigInteger(), nullable=True),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("previous_sha256", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("number", name=op.f("pk_audit_entry")),
    )
    op.create_index(op.f("ix_audit_entry_job_id"), "audit_entry", ["job_id"])
    # Plain columns with a default, not Alembic's copy of the table: on SQLite dropping the old copy would cascade into
    # the rows that refer to it.
    op.add_column("job", sa.Column("force", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("prediction", sa.Column("reused", sa.Boolean(), nullable=False, server_default=sa.false()))


def downgrade() -> None:
    op.drop_column("prediction", "reused")
    op.drop_column("job", "force")
    op.drop_index(op.f("ix_audit_entry_job_id"), table_name="audit_entry")
    op.drop_table("audit_entry")
