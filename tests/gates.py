"""The gates of a loaded model, as scoring applies them to a decoded picture."""

from worker.images.colour import RGBImage
from worker.inference.quality_gate import Measured, Refusal
from worker.scoring.loaded_model import LoadedModel


def checked(model: LoadedModel, image: RGBImage) -> Refusal | Measured:
    """Why a picture is ungradable, or what was measured."""
    model_input = model.bundle.preprocessing(image)
    found = model.gate.check(min(image.shape[:2]), model_input)
    if not isinstance(found, Measured) or model.gate.detector is None:
        return found
    features = model.engine.infer(model_input[None], features=True).features
    assert features is not None
    return model.gate.check_features(found, features[0])
