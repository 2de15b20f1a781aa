"""The probabilities of all classes, where a bundle has more than two."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("prediction", sa.Column("malignant_probability", sa.Double(), nullable=True))
    op.add_column("prediction", sa.Column("class_probabilities", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("prediction", "class_probabilities")
    op.drop_column("prediction", "malignant_probability")
