"""One more reason why an image was not judged: it does not look like dermoscopy."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_NAME = "ck_image_ungradablereason"
_BEFORE = "ungradable_reason IN ('too_small', 'no_contrast', 'blurred')"
_AFTER = "ungradable_reason IN ('too_small', 'no_contrast', 'blurred', 'unlike_dermoscopy')"


def upgrade() -> None:
    _change(_BEFORE, _AFTER)


def downgrade() -> None:
    # Such an image was sent to a human; any of the older reasons says so too.
    op.execute("UPDATE image SET ungradable_reason = 'no_contrast' WHERE ungradable_reason = 'unlike_dermoscopy'")
    _change(_AFTER, _BEFORE)


def _change(before: str, after: str) -> None:
    connection = op.get_bind()
    if connection.dialect.name != "sqlite":
        op.drop_constraint(op.f(_NAME), "image")
        op.create_check_constraint(op.f(_NAME), "image", sa.text(after))
        return
    # SQLite changes a CHECK by writing its schema, the way its manual gives for it (ALTER TABLE, section 7). Alembic's
    # copy of the table would take the predictions along: dropping the old copy cascades into the rows that refer to it.
    connection.exec_driver_sql("PRAGMA writable_schema=ON")
    try:
        changed = connection.execute(
            sa.text(
                "UPDATE sqlite_master SET sql = replace(sql, :before, :after) "
                "WHERE type = 'table' AND name = 'image' AND instr(sql, :before) > 0"
            ),
            {"before": before, "after": after},
        ).rowcount
        if changed != 1:
            raise RuntimeError(f"The table image has no constraint {_NAME} as dermq made it: {before}")
        version = connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
        connection.exec_driver_sql(f"PRAGMA schema_version={version + 1}")
    finally:
        connection.exec_driver_sql("PRAGMA writable_schema=OFF")
