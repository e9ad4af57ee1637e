"""The denoising objective that settings name."""

from molspectra.objectives.denoising import CoordDenoising, DenoisingConfig
from molspectra.objectives.frad import FradDenoising
from molspectra.objectives.slide import SlideDenoising

_KINDS = {"coord": CoordDenoising, "frad": FradDenoising, "slide": SlideDenoising}


def denoising_objective(config: DenoisingConfig) -> CoordDenoising:
    """The objective of `config.kind`."""
    return _KINDS[config.kind](config)
