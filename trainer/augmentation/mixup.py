"""Mixup: training images blended in pairs, and their labels with them.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018. It keeps a network
from learning the few melanomas by heart.

`keras.layers.MixUp` draws one share for a whole batch from a state that no checkpoint holds. Here each image has its
own share, drawn from the caller's generator, so that a resumed run gets the batches it would have had.
"""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


def mixup(images: Floats, labels: Floats, alpha: float, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Blend every image of a batch with another one of it.

    Args:
        images: (n, height, width, channels).
        labels: (n, classes), rows of probabilities.
        alpha: of the distribution Beta(alpha, alpha) that an image's share is drawn from; 0 blends nothing, 1 draws
            all shares alike. The larger part is always the image's own, so that a batch keeps its classes.
        rng: random numbers.

    Returns:
        Blended images and labels, of the same shapes.
    """
    if not alpha:
        return images, labels
    share = rng.beta(alpha, alpha, len(images)).astype(np.float32)
    share = np.maximum(share, 1 - share)
    partner = rng.permutation(len(images))
    of_images, of_labels = share[:, None, None, None], share[:, None]
    return (
        of_images * images + (1 - of_images) * images[partner],
        of_labels * labels + (1 - of_labels) * labels[partner],
    )
