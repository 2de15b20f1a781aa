"""What reviewers found, version by version."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("job_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("image_id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("finding", sa.String(200), nullable=True),
        sa.Column("diagnosis", sa.String(200), nullable=True),
        sa.Column("comment", sa.String(500), nullable=True),
        sa.Column("reviewer", sa.String(200), nullable=False),
        sa.Column("reviewed_on", sa.Date(), nullable=True),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_feedback"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name="fk_feedback_job_id"),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name="fk_feedback_image_id", ondelete="CASCADE"),
        sa.UniqueConstraint("image_id", "version", name="uq_feedback_image_id_version"),
    )
    op.create_index("ix_feedback_job_id", "feedback", ["job_id"])


def downgrade() -> None:
    op.drop_table("feedback")
