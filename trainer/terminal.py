"""What the commands of the trainer print of a model's figures."""

from typing import Any

import click


def print_figures(auroc: dict[str, Any], policies: dict[str, Any], name: str) -> None:
    """Print an area under the curve and what each policy gives.

    Args:
        auroc: ``value``, ``low`` and ``high``, as in ``metrics.json``.
        policies: by name, as in ``metrics.json`` or in the assessment of a report.
        name: what the area is called.
    """
    known = auroc["low"] is not None
    spread = f"95% interval {auroc['low']:.4f} to {auroc['high']:.4f}" if known else "no interval: perfectly separated"
    click.echo(f"{name} {auroc['value']:.4f} ({spread})")
    for policy, figures in policies.items():
        missed = figures.get("missed_melanoma_images", figures.get("missed"))
        click.echo(
            f"{policy}: threshold {figures['threshold']:.4f}, sensitivity {_with_interval(figures['sensitivity'])}, "
            f"specificity {_with_interval(figures['specificity'])}, {missed} melanoma images missed"
        )


def _with_interval(share: dict[str, Any]) -> str:
    known = share["low"] is not None
    return f"{share['value']:.4f}" + (f" ({share['low']:.4f} to {share['high']:.4f})" if known else "")
