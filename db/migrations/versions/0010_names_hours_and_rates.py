"""Names, submitters, working hours and notices of jobs; who closed a chunk; two indexes."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_RETRIED = "ix_chunk_retried"


def upgrade() -> None:
    op.add_column("job", sa.Column("name", sa.String(100), nullable=True))
    op.add_column("job", sa.Column("submitted_by", sa.String(200), nullable=True))
    op.add_column("job", sa.Column("hours", sa.String(11), nullable=True))
    op.add_column("job", sa.Column("resting", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("job", sa.Column("notice", sa.String(32), nullable=True))
    op.execute("UPDATE job SET notice = 'finished' WHERE status = 'finished'")
    # What the audit log knows of earlier jobs.
    op.execute(
        "UPDATE job SET submitted_by = (SELECT min(actor) FROM audit_entry WHERE audit_entry.job_id = job.id "
        "AND audit_entry.action = 'submitted')"
    )
    op.add_column("chunk", sa.Column("closed_by", sa.String(200), nullable=True))
    op.create_index("ix_chunk_job_id_last_completed_at", "chunk", ["job_id", "last_completed_at"])
    retried = sa.text("attempt > 1")
    op.create_index(_RETRIED, "chunk", ["job_id", "id"], sqlite_where=retried, postgresql_where=retried)


def downgrade() -> None:
    op.drop_index(_RETRIED, "chunk")
    op.drop_index("ix_chunk_job_id_last_completed_at", "chunk")
    op.drop_column("chunk", "closed_by")
    for name in ("notice", "resting", "hours", "submitted_by", "name"):
        op.drop_column("job", name)
