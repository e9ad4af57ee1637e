"""A map of the library in two dimensions: structures with similar embeddings are near each other."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from molspectra.apps.explorer import frames
from molspectra.apps.explorer.colours import AMOUNTS, COLOURS
from molspectra.apps.explorer.frames import card, choices, message
from molspectra.chem.identity import identity_from_smiles, parsed_smiles
from molspectra.data.atomic import atomic_file, naming
from molspectra.data.output import cache_folder
from molspectra.errors import (
    DamagedError,
    InputError,
    MissingExtraError,
    SettingError,
    ValueRangeError,
    WriteError,
)
from molspectra.printable import printable
from molspectra.reporting.drawing import draw
from molspectra.reporting.markup import Markup, element
from molspectra.search.filters import hill
from molspectra.search.groups import GROUPS, has
from molspectra.search.library import Library
from molspectra.search.vectors import coarse
from molspectra.spectra.modality import IR, modality

POINTS = 5000
"""Most entries of a map; of more, a sample is drawn."""

LISTED = 12
"""Matches of a search that are listed."""

LONGEST = 300
"""Characters of a search."""

_SEED, _PERPLEXITY, _ITERATIONS, _DIMENSIONS = 0, 30, 1000, 50
_HEIGHT, _LOWER_HEIGHT = 520, 330  # pixels of the map, and of a molecule


@dataclass(frozen=True, eq=False)
class LibraryMap:
    """Places of entries of a library.

    Attributes:
        rows: [k] of the entries, increasing.
        places: [k, 2] without a unit.
        remarks: how it was made, sentences.
    """

    rows: npt.NDArray[np.int64]
    places: npt.NDArray[np.float32]
    remarks: tuple[str, ...]


def library_map(library: Library) -> LibraryMap:
    """The map of a library: made once, then read from the user's cache; the same each time.

    The embeddings of the structures are reduced to 50 dimensions by principal components, and then to two by
    t-SNE (van der Maaten and Hinton, J. Mach. Learn. Res. 9, 2579, 2008), which starts from the first two.

    Raises:
        DamagedError: embeddings that are not numbers.
        MissingExtraError: scikit-learn is not installed.
    """
    count = len(library)
    rows = np.arange(count)
    if count > POINTS:
        rows = np.sort(np.random.default_rng(_SEED).choice(count, POINTS, replace=False))
    remarks = [
        f"t-SNE of the embeddings of {len(rows)} structures, which starts from their principal components: "
        "near points are molecules that the model finds alike; long distances mean little.",
    ]
    if len(rows) < count:
        remarks.append(f"These are a sample of the {count} entries, drawn at random and always the same.")
    path = cache_folder() / f"map-{_key(library)}.npz"
    places = _read(path, len(rows))
    if places is None:
        places = _placed(library, rows)
        try:
            _write(path, places)
        except WriteError as error:
            remarks.append(f"The map will be made anew next time: {error}")
    return LibraryMap(rows, places, tuple(remarks))


def _key(library: Library) -> str:
    """A text that changes with the content of the library and with the way a map is made."""
    try:
        import sklearn
    except ImportError as error:
        raise MissingExtraError(
            "a map needs scikit-learn, which is not installed; pip install 'molspectra[explorer]'"
        ) from error
    content = [[segment.rows, segment.files] for segment in library.manifest.segments]
    method = [POINTS, _SEED, _PERPLEXITY, _ITERATIONS, _DIMENSIONS, sklearn.__version__]
    text = json.dumps([content, method], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _read(path: Path, count: int) -> npt.NDArray[np.float32] | None:
    """Places [count, 2] that were kept; None where there are none, or damaged ones."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            places = kept["places"]
    except (OSError, ValueError, KeyError, EOFError, MemoryError, BadZipFile, TypeError):
        return None
    fits = places.shape == (count, 2) and places.dtype == np.float32 and np.isfinite(places).all()
    return places if fits else None


def _write(path: Path, places: npt.NDArray[np.float32]) -> None:
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        np.savez(file, places=places)


def _placed(library: Library, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Compute the places [k, 2] of some entries, with one thread: sums of several differ in their order."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    vectors = np.concatenate([segment.arrays["structure"] for segment in library.segments])[rows]
    vectors = vectors.astype(np.float64)
    if not np.isfinite(vectors).all():
        raise DamagedError(f"{library.path}: embeddings are not numbers; make the index again")
    places = np.zeros((len(rows), 2))
    if not np.ptp(vectors, axis=0).max() > 1e-9:  # all alike
        return places.astype(np.float32)
    with threadpool_limits(1):
        dimensions = min(_DIMENSIONS, *vectors.shape)
        reduced = PCA(dimensions, svd_solver="full").fit_transform(vectors)
        if len(rows) < 5:  # too few for neighbourhoods
            places[:, : min(2, dimensions)] = reduced[:, :2]
        else:
            perplexity = min(_PERPLEXITY, (len(rows) - 1) / 3)
            places = TSNE(
                perplexity=perplexity, max_iter=_ITERATIONS, init="pca", random_state=_SEED
            ).fit_transform(reduced)
    return places.astype(np.float32)


def amounts(library: Library, rows: npt.NDArray[np.int64], colour: str) -> npt.NDArray[np.float64]:
    """Values [k] of one of `AMOUNTS`, in its unit; NaN where there is none, as for hydrogen."""
    table = library.table.select(["mass", "numbers"]).take(rows)
    if colour == "exact mass":
        return table["mass"].to_numpy()
    atoms = [np.array(numbers) for numbers in table["numbers"].to_pylist()]
    heavy = np.array([(each > 1).sum() for each in atoms], np.float64)
    if colour == "number of heavy atoms":
        return heavy
    others = np.array([((each > 1) & (each != 6)).sum() for each in atoms], np.float64)
    return np.divide(100 * others, heavy, out=np.full(len(rows), np.nan), where=heavy > 0)


def with_group(library: Library, rows: npt.NDArray[np.int64], name: str) -> list[bool | None]:
    """Whether each entry has a functional group; None where it has no SMILES that can be read."""
    (group,) = (each for each in GROUPS if each.name == name)
    found: list[bool | None] = []
    for smiles in library.table["smiles"].take(rows).to_pylist():
        try:
            found.append(None if smiles is None else has(parsed_smiles(smiles), group))
        except InputError:
            found.append(None)
    return found


@dataclass(frozen=True, eq=False)
class Matches:
    """Entries that a search found: `rows`, the best first, and the text."""

    rows: tuple[int, ...]
    text: str


NONE = Matches((), "")


def matching(library: Library, text: str | None) -> Matches:
    """Entries of a SMILES or a molecular formula, or else those whose names hold the text.

    Raises:
        ValueRangeError: the text is too long.
    """
    text = (text or "").strip()
    if len(text) > LONGEST:
        raise ValueRangeError(f"a search has at most {LONGEST} characters, not {len(text)}")
    if not text:
        return NONE
    table, found = library.table, []
    for read, column in ((identity_from_smiles, "identity"), (hill, "formula")):
        try:
            wanted = read(text)
        except InputError:
            continue
        values = table[column].to_pylist()
        found += [row for row, value in enumerate(values) if value == wanted]
    if not found:
        asked = text.casefold()
        names = {row: (name or "").casefold() for row, name in enumerate(table["name"].to_pylist())}
        held = [row for row, name in names.items() if asked in name]
        found = sorted(held, key=lambda row: (names[row] != asked, not names[row].startswith(asked), row))
    return Matches(tuple(dict.fromkeys(found)), text)


def listed(library: Library, matches: Matches) -> Markup:
    """The first matches as buttons."""
    rows = []
    for place, row in enumerate(matches.rows[:LISTED]):
        (record,) = library.table.slice(row, 1).to_pylist()
        rows.append((str(row), card(record["smiles"], _name(record), record["formula"], f"m{place}")))
    return frames.whole(choices(rows, "molecules found", None)) if rows else Markup("")


def told(library: Library, shown: LibraryMap, matches: Matches) -> Markup:
    """How the map was made, and what a search found."""
    if not matches.text:
        return message("Choose a point, or search: the molecule is shown below.", items=shown.remarks)
    away = len(set(matches.rows) - set(shown.rows.tolist()))
    text = f"{printable(matches.text)}: {len(matches.rows)} of {len(library)} entries"
    text += ", with stars on the map" if len(matches.rows) > away else ""
    text += f"; {away} are not in the sample that the map shows" if away else ""
    text += f"; the first {LISTED} are listed" if len(matches.rows) > LISTED else ""
    if not matches.rows:
        text += ": no such SMILES or formula, and no name holds it"
    return message(f"{text}.", items=shown.remarks)


def drawn(library: Library, shown: LibraryMap, colour: str, matches: Matches = NONE) -> Markup:
    """The map, coloured by one of `COLOURS`, with the found entries pointed out.

    Raises:
        SettingError: no such colour.
    """
    if colour not in COLOURS:
        raise SettingError("choose one of the listed properties and groups")
    records = library.table.select(["name", "smiles", "formula"]).take(shown.rows).to_pylist()
    data = {
        "rows": shown.rows.tolist(),
        "x": frames.numbers(shown.places[:, 0]),
        "y": frames.numbers(shown.places[:, 1]),
        "names": [_name(record)[:200] for record in records],
        "formulas": [record["formula"] for record in records],
        "marked": np.flatnonzero(np.isin(shown.rows, matches.rows)).tolist(),
        "colour": colour,
        "unit": AMOUNTS.get(colour, ""),
        "values": frames.numbers(amounts(library, shown.rows, colour)) if colour in AMOUNTS else None,
        "present": None if colour in AMOUNTS else with_group(library, shown.rows, colour),
    }
    return frames.frame("map", data, f"map of the library by {colour}", _HEIGHT)


def molecule(library: Library, choice: object) -> Markup:
    """Drawing, names, structure in 3D and stored spectrum of one entry.

    Raises:
        SettingError: no such entry.
    """
    text = str(choice)
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and int(text) < len(library)):
        raise SettingError("choose a point of the map, or a molecule of the list")
    row = int(text)
    (record,) = library.table.slice(row, 1).to_pylist()
    lines = (
        ("SMILES", record["smiles"] or "none"),
        ("formula", record["formula"]),
        ("exact mass", f"{record['mass']:.4f} Da"),
        ("charge", str(record["charge"])),
    )
    facts = [element("li", f"{title}: {value}") for title, value in lines]
    picture = element("div", draw(record["smiles"], "", "mapped") or "", class_="picture")
    body = element("div", picture, element("ul", facts, class_="facts"), class_="entry")
    return Markup(frames.whole(element("h3", _name(record)) + body) + _structure(library, row, _name(record)))


def _structure(library: Library, row: int, name: str) -> Markup:
    """The structure and the spectrum of an entry: infrared, or else the first that it has."""
    own = {
        kind: library.stored(kind, np.array([row]))[0].astype(np.float64)
        for kind in sorted(library.manifest.modalities, key=lambda kind: kind != IR.name)
    }
    own = {kind: values for kind, values in own.items() if values.any()}
    data = {"name": name, "structure": frames.structure(library.molecule(row))[0], "spectrum": None}
    if own:
        name_of_kind, values = next(iter(own.items()))
        kind = modality(name_of_kind)
        axis, heights = frames.thinned(coarse(kind.axis(), kind).astype(np.float64), values / values.max())
        data["spectrum"] = {
            "title": f"stored {kind.title} spectrum",
            "axisTitle": f"{kind.quantity} / {kind.unit}",
            "range": [float(axis.max()), float(axis.min())][:: 1 if kind == IR else -1],
            "axis": frames.numbers(axis, 6),
            "values": frames.numbers(heights),
        }
    return frames.frame("structure", data, f"structure and spectrum of {name}", _LOWER_HEIGHT)


def _name(record: dict[str, str | None]) -> str:
    return record["name"] or record["smiles"] or record["formula"] or ""
