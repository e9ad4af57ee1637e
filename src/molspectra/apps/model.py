"""A loaded model with what it can do."""

from __future__ import annotations

import os
from typing import Any, Literal

from molspectra.apps import loading
from molspectra.apps.embed import Embeddings, embed
from molspectra.apps.molecules import Molecules
from molspectra.apps.predict import Predicted, predict
from molspectra.apps.predict_spectra import PredictedSpectra, predict_spectra


class Model(loading.LoadedModel):
    """A model ready for use; its torch module is `model`."""

    def embed(self, molecules: Molecules, **options: Any) -> Embeddings:
        """Embed structures by this model; molecules and options as in `molspectra.embed`."""
        return embed(molecules, self, **options)

    def predict(self, molecules: Molecules, **options: Any) -> Predicted:
        """Predict the properties that this model learnt; as in `molspectra.predict`."""
        return predict(molecules, self, **options)

    def predict_spectra(self, molecules: Molecules, **options: Any) -> PredictedSpectra:
        """Predict spectra by this model's spectrum head; as in `molspectra.predict_spectra`."""
        return predict_spectra(molecules, self, **options)


class EnsembleModel(loading.LoadedEnsemble, Model):
    """An ensemble ready for predictions; `model` is its first member."""


def load(
    name: str | os.PathLike[str] = "base",
    *,
    prefer: Literal["best", "last"] = "best",
    cache: str | os.PathLike[str] | None = None,
) -> Model:
    """A model that embeds and predicts; arguments and errors as in `molspectra.apps.loading.load`."""
    found = loading.load(name, prefer=prefer, cache=cache)
    kind = EnsembleModel if isinstance(found, loading.LoadedEnsemble) else Model
    return kind(**vars(found))
