"""``dermq bench``: the speed of this machine."""

from pathlib import Path

import click

from worker.settings import load_settings


@click.command(short_help="Measure how fast this machine scores images.")
@click.argument("folder", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False))
def bench(folder: Path | None) -> None:
    """Measure how fast this machine scores the images of FOLDER, stage by stage and from file to row.

    Without FOLDER it draws images of 600 x 450 pixels. Nothing is written into the database of dermq, and no broker and
    no worker is needed. Stop a running `dermq up` first: it would take a part of the machine.

    \b
    dermq bench /archive
    """
    from rich.table import Table

    from worker.limits import available_cpus
    from worker.local.bench import STAGES, find_images, measure_stages, measure_throughput, scratch_folder
    from worker.terminal import make_console

    settings, console = load_settings(), make_console()
    if settings.is_up():
        click.echo("WARNING: `dermq up` is running, so the figures are too low.", err=True)
    with scratch_folder(settings.home) as scratch:
        place, images = find_images(folder, scratch)
        stages = measure_stages(place, images, settings, scratch)
        total = sum(stages.milliseconds.values())
        table = Table("stage", "ms an image", "share", box=None, pad_edge=False, header_style="dim")
        for column in table.columns[1:]:
            column.justify = "right"
        for stage in STAGES:
            spent = stages.milliseconds[stage]
            table.add_row(stage, f"{spent:.2f}", f"{spent / total:.0%}")
        table.add_row("all", f"{total:.2f}", "")
        refused = f", {stages.refused} of them not scored" if stages.refused else ""
        console.print(f"{stages.images} images one after another on one processor{refused}:")
        console.print(table)
        if 2 * stages.refused > stages.images:
            click.echo("WARNING: most of these images are not scored, so the figures below are too high.", err=True)
        processors = available_cpus()
        # Half of them, too: two hardware threads of one core share its arithmetic units.
        tried = [
            measure_throughput(place, images, settings, scratch, processes)
            for processes in sorted({max(1, processors // 2), processors, settings.concurrency})
        ]
    speeds = Table("processes", "images/s from file to row", "inference alone", box=None, header_style="dim")
    speeds.pad_edge = False
    for column in speeds.columns:
        column.justify = "right"
    for found in tried:
        speeds.add_row(str(found.processes), f"{found.end_to_end:.0f}", f"{found.inference:.0f}")
    console.print("\nTogether:")
    console.print(speeds)
    best = max(tried, key=lambda found: found.end_to_end)
    console.print(
        f"\nFastest: DERMQ_CONCURRENCY={best.processes}, {best.end_to_end / best.inference:.0%} of what inference "
        f"alone would allow. A million such images take about {1e6 / best.end_to_end / 3600:.1f} hours."
    )
