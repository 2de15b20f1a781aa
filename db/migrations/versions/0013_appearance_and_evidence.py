"""What was measured of a scored image, what is unusual about it, and where the evidence lies."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_MEASURES = ("contrast", "sharpness", "ood_score")


def upgrade() -> None:
    for name in _MEASURES:
        op.add_column("prediction", sa.Column(name, sa.Double(), nullable=True))
    op.add_column("prediction", sa.Column("quality_notes", sa.String(200), nullable=True))
    op.add_column("prediction", sa.Column("evidence", sa.LargeBinary(), nullable=True))


def downgrade() -> None:
    for name in ("evidence", "quality_notes", *reversed(_MEASURES)):
        op.drop_column("prediction", name)
