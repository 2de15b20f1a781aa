"""Mutated files of every kind under a limit of memory and time: a picture or a refusal, and never more than it costs.

In processes of their own, whose memory the system limits. What a run finds becomes a case of test_formats.py.
"""

import json
import os
import subprocess
import sys

import pytest

#: Mutations of each seed file. `DERMQ_FUZZ=2000` tries more, by hand.
MUTATIONS = int(os.environ.get("DERMQ_FUZZ", "40"))

_FUZZ = """
import json, random, resource, struct, sys, time
from tests.dicom_files import LOSSLESS, NATIVE, dicom
from tests.format_cases import CASES
from tests.picture_files import PICTURE
from worker.errors import ImageFaultError
from worker.images.decode import decode, reads_as_ever

part, parts, mutations, megabytes, seconds = (int(word) for word in sys.argv[1:])
seeds = [case.make() for case in CASES] + [dicom(PICTURE, syntax=syntax) for syntax in (*NATIVE, *LOSSLESS)]
seeds = seeds[part::parts]
for data in seeds:
    # Everything that is loaded on first use.
    try:
        decode(data)
    except ImageFaultError:
        pass
with open("/proc/self/statm") as file:
    now = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + megabytes * 2**20,) * 2)
random.seed(part)

def mutate(data):
    data = bytearray(data)
    for _ in range(random.choice((1, 1, 2, 4, 8))):
        if not data:
            break
        place = random.choice((random.randrange(len(data)), random.randrange(min(len(data), 200)),
                               len(data) - 1 - random.randrange(min(len(data), 200))))
        kind = random.randrange(6)
        if kind == 0:
            data[place] ^= 1 << random.randrange(8)
        elif kind == 1:
            data[place] = random.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            value = random.choice((0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**24, len(data)))
            word = struct.pack(random.choice(("<I", ">I")), value)
            data[place : place + 4] = word[: len(data) - place]
        elif kind == 3:
            del data[place : place + random.choice((1, 4, 100, len(data) // 2))]
        elif kind == 4:
            data[place:place] = random.randbytes(random.choice((1, 4, 64)))
        else:
            other = random.randrange(len(data))
            data[place : place + 16] = data[other : other + 16]
    return bytes(data)

found = []
for number, seed in enumerate(seeds):
    for _ in range(mutations):
        data = mutate(seed)
        before = time.process_time()
        try:
            decode(data)
            reads_as_ever(data)
        except ImageFaultError:
            pass
        except BaseException as error:
            found.append([number, type(error).__name__, str(error)[:200], data.hex() if len(data) < 2000 else ""])
        if time.process_time() - before > seconds:
            found.append([number, "slow", f"{time.process_time() - before:.1f} s", ""])
print(json.dumps(found))
"""


@pytest.mark.parametrize("part", range(4))
def test_no_mutation_takes_more_than_its_pixels_need_or_raises_anything_else(part: int) -> None:
    # 64 Mi pixels of three bytes, at most twice, and a gibibyte beyond them.
    command = [sys.executable, "-c", _FUZZ, str(part), "4", str(MUTATIONS), str(1024 + 2 * 192), "8"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=3_000)
    assert ran.returncode == 0, ran.stderr[-2_000:]
    assert json.loads(ran.stdout.splitlines()[-1]) == []
