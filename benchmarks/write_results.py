"""Run the benchmarks and put what they print into results.md.

    python benchmarks/write_results.py /data/HAM10000                 all of them, more than an hour
    python benchmarks/write_results.py /data/HAM10000 --only scale    those whose command holds a text

Only the block with the output is replaced, and the date and machine above it. The text around it stays.
"""

import argparse
import platform
import re
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from worker.limits import available_cpus

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results.md"
#: The commands, with FOLDER for the folder of images.
COMMANDS = (
    "end_to_end.py FOLDER",
    "large_images.py FOLDER",
    "readers.py FOLDER",
    "damage.py",
    "overhead.py",
    "overhead.py --postgres",
    "many_workers.py --most 8 --seconds-an-image 0.004",
    "scale.py 10000 1000000 10000000",
    "scale.py 10000 300000 --postgres",
    "engines.py",
)


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="real images, such as HAM10000")
    parser.add_argument("--only", default="", help="only commands that hold this text")
    arguments = parser.parse_args()
    for command in COMMANDS:
        if arguments.only not in command:
            continue
        print(f"# {command}", file=sys.stderr)
        words = shlex.split(command.replace("FOLDER", shlex.quote(str(arguments.folder))))
        done = subprocess.run(
            [sys.executable, str(ROOT / "benchmarks" / words[0]), *words[1:]],
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            cwd=ROOT,
        )
        if done.returncode:
            raise SystemExit(f"{command} failed. Nothing was written for it.")
        RESULTS.write_text(with_output(RESULTS.read_text(encoding="utf-8"), command, done.stdout), encoding="utf-8")


def with_output(text: str, command: str, output: str) -> str:
    """The page with the output of a command in its section, which is added where there is none.

    Args:
        text: of the page.
        command: as in `COMMANDS`.
        output: what it printed.
    """
    heading = f"## `python benchmarks/{command}`\n"
    block = f"\n{_machine()}\n\n```\n{output.strip()}\n```\n"
    if heading not in text:
        return f"{text.rstrip()}\n\n{heading}{block}"
    before, _, rest = text.partition(heading)
    section, mark, after = rest.partition("\n## ")
    section = re.sub(r"\A\n.*?^```\n.*?^```\n", lambda _: block, section, count=1, flags=re.DOTALL | re.MULTILINE)
    return before + heading + section + mark + after


def _machine() -> str:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.processor(),
    )
    python = platform.python_version()
    return f"{datetime.now(UTC):%Y-%m-%d}, {available_cpus()} processors ({model}), Python {python}."


if __name__ == "__main__":
    main()
