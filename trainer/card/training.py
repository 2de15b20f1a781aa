"""What a model card says of the training: each run that the weights went through, oldest first."""

from trainer.config import OTHER_DIAGNOSES_SHARE
from trainer.run_records import RunOrigin, Teacher

_KEPT = {"best": "the epoch with the greatest validation AUC", "last": "the last epoch"}


def first_weights(run: RunOrigin) -> str:
    """Where the backbone's weights came from before any of the runs."""
    return run.lineage()[0].weights_from


def how_trained(run: RunOrigin) -> str:
    """One sentence in Markdown for each run that the weights went through."""
    return " ".join(_step(step, "Trained" if number == 0 else "Then") for number, step in enumerate(run.lineage()))


def _teacher(teacher: Teacher) -> str:
    return (
        f"{teacher.backbone} at {teacher.size} pixels, {teacher.classes} classes ({teacher.run}, SHA-256 "
        f"{teacher.model_sha256[:12]}…)"
    )


def _step(run: RunOrigin, begin: str) -> str:
    config = run.config
    by_source = (
        f"{config.ham10000_share:.0%} of each class from HAM10000, sources drawn in proportion to their number of "
        f"images to the power {config.sampling_power:g}"
    )
    if config.classes == "seven":
        loss = f"cross-entropy with label smoothing {config.label_smoothing:g}"
        samples = (
            f"{config.epochs} epochs of {config.samples_per_epoch:,} images, in which a diagnosis is drawn in "
            f"proportion to its number of images to the power {config.sampling_power:g}"
        )
        if config.draw == "sources":
            samples = (
                f"{config.epochs} epochs of {config.samples_per_epoch:,} images, as many melanomas as nevi, "
                f"{by_source}; {OTHER_DIAGNOSES_SHARE:.0%} of all images are of the other diagnoses, by the same power"
            )
        if config.histology_nevi_share:
            samples += f", {config.histology_nevi_share:.0%} of the nevi proven by histology"
    else:
        loss = f"binary focal loss (gamma {config.focal_gamma:g}, alpha {config.focal_alpha:g})"
        samples = f"{config.epochs} epochs over the melanomas with as many nevi"
        if config.draw == "sources":
            samples = (
                f"{config.epochs} epochs of {config.samples_per_epoch:,} images, half of them melanomas, {by_source}"
            )
        if config.source_balanced:
            samples += ", as many from each source as it has melanomas"
    if config.patience:
        samples += f", ended after {config.patience} epochs without a better one"
    if config.teachers:
        loss = (
            "cross-entropy with the mean output of teachers instead of the diagnosis (knowledge distillation; "
            f"teachers: {'; '.join(_teacher(teacher) for teacher in run.teachers)})"
        )
    if config.mixup:
        loss += f", images blended in pairs (mixup, alpha {config.mixup:g})"
    if config.artefacts:
        loss += f"; hair, ruler, ink, dark rim, blur or JPEG drawn on {config.artefacts:.0%} of the training images"
    if config.augmentation == "cameras":
        loss += "; aspect, resolution, sharpness, compression and colour of the training images changed at random"
    if config.without_source:
        loss += f"; without the images of the source `{config.without_source}`, in validation too"
    head = f"{config.head_epochs} epochs of the head only, then " if config.head_epochs else ""
    layers = "all layers" if config.unfreeze_last < 0 else f"the last {config.unfreeze_last} layers"
    return (
        f"{begin} at {config.size} pixels: {head}{layers}, {samples}; {loss}; batch normalisation "
        f"{config.batch_normalisation}; AdamW, peak learning rate {config.learning_rate:g}, cosine decay, weight decay "
        f"{config.weight_decay:g}, moving average of the weights {config.ema_momentum:g}; {_KEPT[config.checkpoint]} "
        f"was kept; seed {config.seed}."
    )
