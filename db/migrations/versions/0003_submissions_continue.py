"""Who takes a job in, so that a submission whose process died can be continued."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("job", sa.Column("submitter", sa.String(length=200), nullable=True))
    op.add_column("job", sa.Column("submitter_expires_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    op.drop_column("job", "submitter_expires_at")
    op.drop_column("job", "submitter")
