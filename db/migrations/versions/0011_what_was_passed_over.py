"""Files that were not submitted, by kind; identifiers of DICOM images; the reader of a prediction's pixels."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_IDENTIFIERS = ("study_uid", "series_uid", "instance_uid")


def upgrade() -> None:
    op.add_column("job", sa.Column("passed_over", sa.JSON(), nullable=True))
    for name in _IDENTIFIERS:
        op.add_column("image", sa.Column(name, sa.String(64), nullable=True))
    op.add_column("prediction", sa.Column("reader", sa.Integer(), nullable=False, server_default="1"))


def downgrade() -> None:
    op.drop_column("prediction", "reader")
    for name in reversed(_IDENTIFIERS):
        op.drop_column("image", name)
    op.drop_column("job", "passed_over")
