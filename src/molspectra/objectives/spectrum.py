"""Prediction of spectra from the clean structure: a relative squared error on the logarithmic scale."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from molspectra.data.batch import Batch, to_device
from molspectra.models.specformer import transform
from molspectra.objectives.loss import Loss

FLOOR = 1e-3
"""Added to the mean square of a spectrum, so that an almost empty one does not dominate the loss."""


def relative_errors(prediction: Tensor, spectrum: Tensor) -> Tensor:
    """Return the errors [B] of predicted spectra, mean (t̂ - t)² / (mean t² + FLOOR) with t = log10(s + 1).

    A prediction of zero has an error of about 1 in every modality.

    Args:
        prediction: [B, points] predicted intensities, not negative.
        spectrum: [B, points] raw intensities.

    Raises:
        ValueError: the shapes differ.
    """
    if prediction.shape != spectrum.shape:
        raise ValueError(f"predictions {tuple(prediction.shape)}, but spectra {tuple(spectrum.shape)}")
    target = transform(spectrum)
    error = (transform(prediction.to(target)) - target).square().mean(1)  # not in bfloat16
    return error / (target.square().mean(1) + FLOOR)


class SpectrumPrediction:
    """Sum of `relative_errors` over the present spectra, per modality; an item is a spectrum.

    Args:
        names: modalities that are predicted.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)

    def __call__(self, predictions: Mapping[str, Tensor], batch: Batch) -> dict[str, Loss]:
        """Return one loss per modality, against the spectra of a batch before augmentation.

        Args:
            predictions: [B, points] per modality.
            batch: with the spectra.
        """
        clean, losses = batch.before_augmentation, {}
        for name in self.names:
            errors = relative_errors(predictions[name], clean.spectra[name])
            present = to_device(clean.present[name], errors.device)
            losses[name] = Loss((errors * present).sum(), self.count(batch, name))
        return losses

    def count(self, batch: Batch, name: str) -> float:
        """Count the present spectra of one modality in a batch."""
        return float(batch.before_augmentation.present[name].sum())
