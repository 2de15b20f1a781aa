"""Where a backbone's first weights come from, and the checks before they are taken.

Three ways: a package from the package index carries them, Keras downloads its official file, or a file is given. A file
is checked twice: by hash, so that nobody trains for a day from something else than they think, and by the shapes of its
arrays, so that the message names the fault.
"""

import hashlib
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import keras

from trainer.errors import WeightsError
from trainer.networks.backbones.weights_file import array_shapes

#: The two values of ``--weights`` that are not a file.
IMAGENET, NONE = "imagenet", "none"
#: Seconds without data after which a download is given up.
_PATIENCE = 30.0
#: Differing shapes in an error. The others are counted.
_NAMED_IN_ERROR = 4

Shape = tuple[int, ...]
Load = Callable[[keras.Model], None]
ReadFile = Callable[[keras.Model, Path], None]


class WeightsSource(Protocol):
    """Where ImageNet weights come from."""

    @property
    def description(self) -> str:
        """One line for the card."""

    @property
    def offline(self) -> bool:
        """Whether an installed package contains them."""

    @property
    def official(self) -> "OfficialFile | None":
        """The published file, where there is one with a published hash."""

    def load(self, model: keras.Model, name: str, offline: Sequence[str]) -> None:
        """Set the ImageNet weights.

        Args:
            model: with the architecture they belong to.
            name: of the backbone, for messages.
            offline: backbones that need no download, for messages.
        """

    def read(self, model: keras.Model, path: Path) -> None:
        """Set the weights of a file whose hash has been checked."""


@dataclass(frozen=True, kw_only=True)
class OfficialFile:
    """A file as Keras publishes it.

    Args:
        name: of the file, without the classification head.
        url: it is downloaded from.
        digest: MD5 (32 digits) or SHA-256 (64), hexadecimal, as Keras publishes it.
        digest_with_top: of the file with the head, which is easily mistaken for it.
    """

    name: str
    url: str
    digest: str
    digest_with_top: str

    @property
    def algorithm(self) -> str:
        """Name of the hash, as hashlib knows it."""
        return {32: "md5", 64: "sha256"}[len(self.digest)]


@dataclass(frozen=True, kw_only=True)
class PackageWeights:
    """Weights that a Python package contains.

    Args:
        package: its name there.
        licence: of the weights.
        load_package: sets them.
    """

    package: str
    licence: str
    load_package: Load
    offline: bool = True
    official: OfficialFile | None = None

    @property
    def description(self) -> str:
        return f"package {self.package} ({self.licence}), ImageNet-1k"

    def load(self, model: keras.Model, name: str, offline: Sequence[str]) -> None:
        self.load_package(model)

    def read(self, model: keras.Model, path: Path) -> None:
        read_keras_file(model, path)


@dataclass(frozen=True, kw_only=True)
class KerasWeights:
    """The official file of keras.applications, downloaded once into the cache of Keras.

    Args:
        official: the file.
        convert: changes the weights for our model, or None.
    """

    official: OfficialFile
    convert: Load | None = None
    offline: bool = False

    @property
    def description(self) -> str:
        return f"{self.official.name}, Keras Applications (Apache-2.0), ImageNet-1k"

    def load(self, model: keras.Model, name: str, offline: Sequence[str]) -> None:
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(_PATIENCE)
        try:
            path = keras.utils.get_file(
                self.official.name, self.official.url, cache_subdir="models", file_hash=self.official.digest
            )
        except Exception as error:  # Keras raises a bare Exception when a server cannot be reached
            raise WeightsError(
                f"The ImageNet weights of {name} could not be downloaded ({error}).\n"
                f"Connect this machine and run again, or fetch {self.official.url} on another machine and pass it with "
                f"--weights {self.official.name} ({self.official.algorithm.upper()} {self.official.digest}).\n"
                f"Without any download: --backbone {' or '.join(offline)}, whose weights come in a package, or "
                "--weights "
                "none for random weights."
            ) from None
        finally:
            socket.setdefaulttimeout(before)
        self.read(model, Path(path))

    def read(self, model: keras.Model, path: Path) -> None:
        read_keras_file(model, path)
        if self.convert:
            self.convert(model)


@dataclass(frozen=True, kw_only=True)
class OwnFile:
    """Weights that neither a package nor Keras publishes, so that the file must be given.

    Args:
        published: what file that is and where.
        read_published: reads it. Any other file must be one that Keras saved from this architecture.
        suffix: ending of the published file.
    """

    published: str
    read_published: ReadFile
    suffix: str
    offline: bool = False
    official: OfficialFile | None = None

    @property
    def description(self) -> str:
        return self.published

    def load(self, model: keras.Model, name: str, offline: Sequence[str]) -> None:
        raise WeightsError(
            f"--weights imagenet is not possible for {name}: neither Keras nor a package has these weights. Fetch "
            f"{self.published}, and pass it with --weights FILE --weights-sha256 HEX.\n"
            f"Without any download: --backbone {' or '.join(offline)}, or --weights none for random weights."
        )

    def read(self, model: keras.Model, path: Path) -> None:
        if path.suffix == self.suffix:
            self.read_published(model, path)
        else:
            read_keras_file(model, path)


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """Hash of a file, hexadecimal.

    Raises:
        WeightsError: there is no such file.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, algorithm).hexdigest()
    except (FileNotFoundError, IsADirectoryError):
        raise WeightsError(
            f"--weights {path} does not exist. Name imagenet, none, the folder of a run, or a weights file."
        ) from None


def check_file(path: Path, name: str, official: OfficialFile | None, sha256: str) -> None:
    """Refuse a file that is neither the official one nor the one whose SHA-256 was given.

    Args:
        path: the file.
        name: of the backbone, for messages.
        official: the published file, if any.
        sha256: hexadecimal, in upper or lower case. Empty when none was given.

    Raises:
        WeightsError: names both hashes and what to do.
    """
    found = file_digest(path)
    if sha256:
        if found != sha256.lower():
            raise WeightsError(
                f"{path.name} has SHA-256 {found}, and --weights-sha256 names "
                f"{sha256.lower()}. Fetch the file again, or correct the hash."
            )
        return
    own = f"If this is your own file and its source states this hash, add --weights-sha256 {found}."
    if official is None:
        raise WeightsError(
            f"There is no official weights file for {name} that {path.name} could be compared with. {own}"
        )
    digest = file_digest(path, official.algorithm)
    if digest == official.digest:
        return
    if digest == official.digest_with_top:
        raise WeightsError(
            f"{path.name} is the official file with the classification head. Fetch the one without it, {official.url}."
        )
    raise WeightsError(
        f"{path.name} has {official.algorithm.upper()} {digest}, and the official {official.name} has "
        f"{official.digest}. "
        f"Fetch it from {official.url}. {own}"
    )


def read_keras_file(model: keras.Model, path: Path) -> None:
    """Set weights that Keras saved: ``.weights.h5``, ``.keras`` or the older ``.h5``.

    Raises:
        WeightsError: the file is of another kind, or its arrays do not have the model's shapes.
    """
    expected = Counter(tuple(weight.shape) for weight in model.weights)
    try:
        found = Counter(array_shapes(path))
    except (OSError, ValueError, KeyError) as error:
        raise WeightsError(
            f"{path.name} is not a weights file of Keras ({error}). Name a .weights.h5, .keras or .h5 file."
        ) from None
    if found != expected:
        raise WeightsError(
            f"{path.name} has {_sum(found)}, and {model.name} without a classification head has {_sum(expected)}."
            f"{_differences(found, expected)} It may be the file of another backbone, or one with a head."
        )
    try:
        model.load_weights(path)
    except ValueError as error:
        raise WeightsError(
            f"The arrays of {path.name} have the shapes of {model.name}, but not its order ({error}). Name a file that "
            "was saved from this architecture."
        ) from None


def _sum(shapes: Counter[Shape]) -> str:
    numbers = 0
    for shape, count in shapes.items():
        product = count
        for side in shape:
            product *= side
        numbers += product
    return f"{shapes.total()} arrays of {numbers:,} numbers"


def _differences(found: Counter[Shape], expected: Counter[Shape]) -> str:
    text = ""
    for words, shapes in (("Missing", expected - found), ("Too many", found - expected)):
        if shapes:
            listed = ", ".join(f"{count} of {shape}" for shape, count in shapes.most_common(_NAMED_IN_ERROR))
            rest = len(shapes) - _NAMED_IN_ERROR
            text += f" {words}: {listed}" + (f" and {rest} more shapes." if rest > 0 else ".")
    return text
