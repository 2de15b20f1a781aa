"""First tables"""

import sqlalchemy as sa
from alembic import op

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_bundle",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("version", sa.String(length=50), nullable=False),
        sa.Column("recorded_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_bundle")),
        sa.UniqueConstraint("sha256", name=op.f("uq_model_bundle_sha256")),
    )
    op.create_table(
        "job",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "submitting",
                "queued",
                "running",
                "paused",
                "finished",
                "cancelled",
                name="jobstatus",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("urgent", sa.Boolean(), nullable=False),
        sa.Column("root", sa.String(length=4096), nullable=False),
        sa.Column("manifest", sa.String(length=4096), nullable=True),
        sa.Column("bundle_id", ROW_ID, nullable=False),
        sa.Column("policy", sa.String(length=50), nullable=False),
        sa.Column("threshold", sa.Double(), nullable=False),
        sa.Column("borderline_from", sa.Double(), nullable=False),
        sa.Column("submitted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["bundle_id"], ["model_bundle.id"], name=op.f("fk_job_bundle_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
    )
    op.create_table(
        "chunk",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("job_id", ROW_ID, nullable=False),
        sa.Column(
            "status",
            sa.Enum(
                "waiting", "leased", "done", name="chunkstatus", native_enum=False, create_constraint=True, length=32
            ),
            nullable=False,
        ),
        sa.Column("size", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("hinted_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_chunk_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chunk")),
    )
    with op.batch_alter_table("chunk", schema=None) as batch_op:
        batch_op.create_index(op.f("ix_chunk_job_id_status"), ["job_id", "status"], unique=False)
        batch_op.create_index(op.f("ix_chunk_status_hinted_at"), ["status", "hinted_at"], unique=False)

    op.create_table(
        "image",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("job_id", ROW_ID, nullable=False),
        sa.Column("chunk_id", ROW_ID, nullable=False),
        sa.Column("path", sa.String(length=4096), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("modified_ns", sa.BigInteger(), nullable=True),
        sa.Column("lesion_id", sa.String(length=200), nullable=True),
        sa.Column("patient_ref", sa.String(length=200), nullable=True),
        sa.Column("age", sa.Double(), nullable=True),
        sa.Column("sex", sa.String(length=50), nullable=True),
        sa.Column("site", sa.String(length=200), nullable=True),
        sa.Column(
            "status",
            sa.Enum(
                "waiting",
                "scored",
                "ungradable",
                "failed",
                name="imagestatus",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column(
            "failure_code",
            sa.Enum(
                "missing",
                "unreadable",
                "truncated",
                "too_large",
                "unsupported_format",
                "outside_root",
                "changed_since_submission",
                "crashed_worker",
                "timed_out",
                "engine_error",
                name="failurecode",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
        ),
        sa.Column(
            "ungradable_reason",
            sa.Enum(
                "too_small",
                "no_contrast",
                "blurred",
                name="ungradablereason",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=True,
        ),
        sa.Column("reason", sa.String(length=500), nullable=True),
        sa.Column("careful_starts", sa.Integer(), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["chunk_id"], ["chunk.id"], name=op.f("fk_image_chunk_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_image_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.UniqueConstraint("job_id", "path", name=op.f("uq_image_job_id_path")),
    )
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.create_index(op.f("ix_image_chunk_id"), ["chunk_id"], unique=False)
        batch_op.create_index(op.f("ix_image_job_id_status"), ["job_id", "status"], unique=False)

    op.create_table(
        "prediction",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("image_id", ROW_ID, nullable=False),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("bundle_id", ROW_ID, nullable=False),
        sa.Column("engine", sa.String(length=50), nullable=False),
        sa.Column("raw_probability", sa.Double(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column(
            "flag",
            sa.Enum(
                "high_risk",
                "borderline",
                "low_risk",
                "ungradable",
                name="triageflag",
                native_enum=False,
                create_constraint=True,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("scored_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["bundle_id"], ["model_bundle.id"], name=op.f("fk_prediction_bundle_id")),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_prediction_image_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prediction")),
        sa.UniqueConstraint("image_id", name=op.f("uq_prediction_image_id")),
    )
    with op.batch_alter_table("prediction", schema=None) as batch_op:
        batch_op.create_index(op.f("ix_prediction_image_sha256_bundle_id"), ["image_sha256", "bundle_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("prediction", schema=None) as batch_op:
        batch_op.drop_index(op.f("ix_prediction_image_sha256_bundle_id"))

    op.drop_table("prediction")
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.drop_index(op.f("ix_image_job_id_status"))
        batch_op.drop_index(op.f("ix_image_chunk_id"))

    op.drop_table("image")
    with op.batch_alter_table("chunk", schema=None) as batch_op:
        batch_op.drop_index(op.f("ix_chunk_status_hinted_at"))
        batch_op.drop_index(op.f("ix_chunk_job_id_status"))

    op.drop_table("chunk")
    op.drop_table("job")
    op.drop_table("model_bundle")
