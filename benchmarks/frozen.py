"""What frozen embeddings know: kernel ridge regression of a property on them, with few labels.

    python benchmarks/frozen.py --store labelled.arrow [--model base ...] [--targets gap homo] [--labels 1000]

Labels are drawn three times from the training part of the split by identity; kernel, width and regularisation
are chosen on 600 molecules of the validation part; errors are those of the test part. A store with densities
of states gives the error of the kernel on these, too.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from molspectra.data.store.store import Store
from molspectra.evaluation.embedding import embed_batch, pooled_batch
from molspectra.spectra.modality import DOS
from molspectra.training.checkpoint import load_model
from molspectra.training.config import DataConfig
from molspectra.training.data import Selection

Floats = npt.NDArray[np.float64]

DRAWS = 3
CHOICE = 600  # validation molecules on which the kernel is chosen
BATCH = 256
WIDTHS = (0.03, 0.1, 0.3, 1.0, 3.0)  # of the kernel, relative to the median distance of training molecules
RIDGES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


def kernels() -> Iterator[Callable[[Floats], Floats]]:
    """Yield kernels of squared distances in units of their median: Gaussian, then exponential."""
    for width in WIDTHS:
        yield lambda square, width=width: np.exp(-width * square)
    for width in WIDTHS:
        yield lambda square, width=width: np.exp(-width * np.sqrt(square))


def error(features: Floats, values: Floats, train: int, choice: int) -> float:
    """Test error of kernel ridge regression; the first rows are for training, the next for the choice."""
    features = (features - features[:train].mean(0)) / (features[:train].std(0) + 1e-9)
    learnt = features[:train]
    square = (features**2).sum(1)[:, None] + (learnt**2).sum(1) - 2 * features @ learnt.T
    square = square.clip(0) / np.median(square[:train])
    mean, best = values[:train].mean(), (np.inf, np.inf)
    for kernel in kernels():
        gram = kernel(square)
        for ridge in RIDGES:
            weights = np.linalg.solve(gram[:train] + ridge * np.eye(train), values[:train] - mean)
            errors = np.abs(gram[train:] @ weights + mean - values[train:])
            best = min(best, (errors[:choice].mean(), errors[choice:].mean()))
    return float(best[1])


def features_of(store: Store, rows: npt.NDArray[np.int64], models: list[str]) -> dict[str, Floats]:
    """Return the features [n, k] of rows by name: of every model, and densities of states if any."""
    found: dict[str, list[torch.Tensor]] = {}
    loaded = {name: load_model(name)[0] for name in models}
    has_levels = all(name in store.metadata.modalities for name in DOS)
    for start in range(0, len(rows), BATCH):
        batch = store.batch(rows[start : start + BATCH], modalities=DOS if has_levels else ())
        for name, model in loaded.items():
            found.setdefault(f"{name}, sums", []).append(embed_batch(model, batch))
            found.setdefault(f"{name}, pooled", []).append(pooled_batch(model, batch))
        if has_levels:
            levels = torch.cat([torch.log10(1 + batch.spectra[name][:, ::4]) for name in DOS], dim=1)
            found.setdefault("densities of states", []).append(levels.double())
    return {name: torch.cat(parts).numpy() for name, parts in found.items()}


def main() -> None:
    """Print a table: mean and sample standard deviation over the draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True)
    parser.add_argument("--model", nargs="+", default=["base"])
    parser.add_argument("--targets", nargs="+", default=["gap", "homo", "alpha"])
    parser.add_argument("--labels", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    selection = Selection.of(DataConfig(options.store), tuple(options.targets))
    store, errors = selection.store, {}
    for draw in range(DRAWS):
        train = np.random.default_rng(draw).choice(selection.train, options.labels, replace=False)
        rows = np.concatenate([train, selection.val[:CHOICE], selection.test])
        for name, features in features_of(store, rows, options.model).items():
            for target in options.targets:
                value = error(features, store.column(target)[rows], len(train), CHOICE)
                errors.setdefault((name, target), []).append(value)
    for (name, target), values in errors.items():
        unit = store.metadata.properties[target].unit
        print(f"{name:24} {target:6} {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} {unit}")


if __name__ == "__main__":
    main()
