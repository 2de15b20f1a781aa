"""What a model card says of the training: each run that the weights went through, oldest first."""

from typing import Any

from trainer.config import RunConfig
from trainer.run_folder import lineage

_KEPT = {"best": "the epoch with the greatest validation AUC", "last": "the last epoch"}


def first_weights(run: dict[str, Any]) -> str | None:
    """Where the backbone's weights came from before any of the runs; None for a run that did not note it.

    Args:
        run: as `trainer.evaluation.subject.describe_run` tells it, or as `trainer.run_folder.RunFolder.origin` does.
    """
    found: str | None = lineage(run)[0]["weights_from"]
    return found


def how_trained(run: dict[str, Any]) -> str:
    """One sentence for each run that the weights went through, and one on what was averaged.

    Args:
        run: as `trainer.evaluation.subject.describe_run` tells it.

    Returns:
        Markdown.
    """
    steps = lineage(run)
    return " ".join(_step(step, "Trained" if number == 0 else "Then") for number, step in enumerate(steps))


def _teacher(teacher: dict[str, Any]) -> str:
    config = teacher["config"]
    return (
        f"{config['backbone']} at {config['size']} pixels, {config['classes']} classes ({teacher['run']}, SHA-256 "
        f"{teacher['model_sha256'][:12]}…)"
    )


def _step(run: dict[str, Any], begin: str) -> str:
    config = RunConfig.from_settings(run["config"], run=str(run.get("run", "")))
    if config.classes == "seven":
        loss = f"cross-entropy, label smoothing {config.label_smoothing:g}"
        draws = (
            f"{config.epochs} rounds of {config.samples_per_epoch:,} draws, a diagnosis in proportion to its images "
            "to the "
            f"power {config.sampling_power:g}"
        )
        if config.histology_nevi_share:
            draws += f", {config.histology_nevi_share:.0%} of the nevi proven by histology"
    else:
        loss = f"binary focal loss (gamma {config.focal_gamma:g}, alpha {config.focal_alpha:g})"
        draws = f"{config.epochs} passes over the melanomas with as many nevi"
        if config.source_balanced:
            draws += ", from each source as many as it has melanomas"
    if config.patience:
        draws += f", or fewer, for after {config.patience} without a better one it ends"
    if config.teachers:
        loss = (
            "cross-entropy with what other runs say together of the image, in place of its diagnosis (knowledge "
            f"distillation; teachers: {'; '.join(_teacher(teacher) for teacher in run['teachers'])})"
        )
    if config.mixup:
        loss += f", images blended in pairs (mixup, alpha {config.mixup:g})"
    if config.artefacts:
        loss += f"; hair, ruler, ink, dark rim, blur or JPEG drawn on {config.artefacts:.0%} of the training images"
    if config.without_source:
        loss += f"; without the images of the source `{config.without_source}`, in validation neither"
    head = f"{config.head_epochs} epochs of the head alone, then " if config.head_epochs else ""
    layers = "all layers" if config.unfreeze_last < 0 else f"the last {config.unfreeze_last} layers"
    text = (
        f"{begin} at {config.size} pixels: {head}{layers}, {draws}; {loss}; batch normalisation "
        f"{config.batch_normalisation}; AdamW, peak rate {config.learning_rate:g}, cosine decay, weight decay "
        f"{config.weight_decay:g}, moving average of the weights {config.ema_momentum:g}; {_KEPT[config.checkpoint]} "
        "was kept; "
    )
    if members := run.get("averaged"):
        anew = ", batch normalisation's statistics taken anew" if config.batch_normalisation == "trained" else ""
        return (
            f"{text}this {len(members)} times, with the seeds {', '.join(str(member['seed']) for member in members)}; "
            f"the weights are the mean of the results{anew}."
        )
    return f"{text}seed {config.seed}."
