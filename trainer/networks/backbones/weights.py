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

from trainer.networks.backbones.weights_file import array_shapes

#: The two values of ``--weights`` that are not a file.
IMAGENET, NONE = "imagenet", "none"
#: Seconds without a sign of life after which a download is given up.
_PATIENCE = 30.0
#: Differing shapes named in an error; the rest are counted.
_NAMED_IN_ERROR = 4

Shape = tuple[int, ...]
Load = Callable[[keras.Model], None]
ReadFile = Callable[[keras.Model, Path], None]


class WeightsError(ValueError):
    """The first weights are not to be had, or are not what they should be; the text says what to do."""


class WeightsSource(Protocol):
    """Where ImageNet weights come from."""

    @property
    def description(self) -> str:
        """One line for the card."""

    @property
    def offline(self) -> bool:
        """Whether an installed package carries them."""

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
        name: of the file, without the classifying top.
        url: it is downloaded from.
        digest: MD5 (32 digits) or SHA-256 (64), hexadecimal, as Keras publishes it.
        digest_with_top: of the file that holds the classifying top too, which is easily taken for it.
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
    """Weights that a package from the package index carries.

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
    """The official file of keras.applications, downloaded once into Keras' own cache.

    Args:
        official: the file.
        convert: what is changed in the weights for a model of ours, if anything.
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
                f"Either connect this machine and run again, or fetch {self.official.url} on another one and pass it: "
                f"--weights {self.official.name} ({self.official.algorithm.upper()} {self.official.digest}).\n"
                f"Without any download: --backbone {' or '.join(offline)}, whose weights come from the package index; "
                "or --weights none for random ones."
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
    """Weights that are published neither in a package nor by Keras: the file has to be given.

    Args:
        published: what file that is and where.
        read_published: reads it; a file of another kind is taken for one that Keras saved from this architecture.
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
            f"Received: --weights imagenet for {name}. Expected: a file, for neither Keras nor the package index "
            f"carries these weights. Fetch {self.published} and pass it: --weights FILE --weights-sha256 HEX.\n"
            f"Without any download: --backbone {' or '.join(offline)}; or --weights none for random ones."
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
            f"Received: --weights {path}, and there is no such file. Expected: imagenet, none, the folder of a run, "
            "or the path of a weights file."
        ) from None


def check_file(path: Path, name: str, official: OfficialFile | None, sha256: str) -> None:
    """Refuse a file that is neither the official one nor the one whose SHA-256 was given.

    Args:
        path: the file.
        name: of the backbone, for messages.
        official: the published file, if any.
        sha256: hexadecimal, in either case; empty when none was given.

    Raises:
        WeightsError: says what was found, what was expected and how to go on.
    """
    found = file_digest(path)
    if sha256:
        if found != sha256.lower():
            raise WeightsError(
                f"Received: {path.name} with SHA-256 {found}. Expected: {sha256.lower()}, as --weights-sha256 says. "
                "Fetch the file again, or correct the hash."
            )
        return
    own = f"A file of your own is taken with its hash: --weights-sha256 {found}, if that is what its source states."
    if official is None:
        raise WeightsError(
            f"Received: {path.name} for {name}, of which no official file is known. Expected: its hash with it. {own}"
        )
    digest = file_digest(path, official.algorithm)
    if digest == official.digest:
        return
    if digest == official.digest_with_top:
        raise WeightsError(
            f"Received: {path.name}, the official file with the classifying top. Expected: the one without it, "
            f"{official.url}."
        )
    raise WeightsError(
        f"Received: {path.name} with {official.algorithm.upper()} {digest}. Expected: the official {official.name} "
        f"with {official.digest}, from {official.url}. {own}"
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
            f"Received: {path.name}, which is not a weights file of Keras ({error}). Expected: .weights.h5, .keras or "
            "the older .h5."
        ) from None
    if found != expected:
        raise WeightsError(
            f"Received: {path.name} with {_sum(found)}. Expected: {_sum(expected)}, the whole {model.name} without its "
            f"classifying top.{_differences(found, expected)} Is it the file of another backbone, or one with a top?"
        )
    try:
        model.load_weights(path)
    except ValueError as error:
        raise WeightsError(
            f"Received: {path.name}, whose arrays have the shapes of {model.name} but not its order ({error}). "
            "Expected: a file saved from this architecture."
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
