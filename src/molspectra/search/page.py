"""The page of a search: one self-contained HTML file about the answers, and why each is one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from molspectra.chem.identity import parsed_smiles, perceived_bonds
from molspectra.chem.molecule import Molecule
from molspectra.chem.sanity import RDKIT_ERRORS, covalent_radii
from molspectra.data.atomic import atomic_file
from molspectra.data.output import free_path
from molspectra.errors import InputError
from molspectra.reporting.content import Depicted
from molspectra.reporting.drawing import Pictures
from molspectra.reporting.markup import Child, Markup, element, listing, page, paragraph, section, table
from molspectra.search.answers import answers_table, fixed
from molspectra.search.bands import Band
from molspectra.search.explain import Explanation
from molspectra.search.figure import SYMBOLS, figure, height, position, title, weight
from molspectra.search.hits import Hits
from molspectra.spectra.modality import modality

SUFFIXES = (".html", ".htm")
"""Files that a page can be written to."""

_MOTIONS = 6  # strongest bands whose moving atoms are drawn
_STRETCH = 1.35  # of the sum of covalent radii, within which two atoms may be bonded

_VERDICTS = {"supported": "✓ supported", "contradicted": "✗ contradicted", "open": "? open"}


def write_page(
    path: Path | str,
    hits: Hits,
    explanations: Sequence[Explanation],
    sources: Mapping[str, Path | str],
    overwrite: bool = False,
) -> Path:
    """Write the page atomically; the same content gives the same bytes.

    Args:
        path: of the HTML file.
        hits: the answers.
        explanations: of the first of them.
        sources: files of the spectra that were searched with, by modality.
        overwrite: replace the file if it exists.

    Returns:
        The path.

    Raises:
        InputError: another suffix, the file exists, or it cannot be written.
    """
    path = free_path(path, SUFFIXES, overwrite=overwrite)
    text = _page(hits, explanations, sources)
    with atomic_file(path) as file:
        file.write(text.encode())
    return path


def drawn_atoms(molecule: Molecule, smiles: str) -> list[int] | None:
    """Atom of a SMILES for every atom [N] of a structure; for a hydrogen that is not drawn, its neighbour.

    Returns:
        Their indices, or None where the two cannot be laid over one another.
    """
    from rdkit import Chem

    try:
        drawing = parsed_smiles(smiles)
        full = Chem.AddHs(drawing)
        order = _order(full, molecule)
    except (InputError, *RDKIT_ERRORS):
        return None
    if order is None:
        return None
    atoms = [full.GetAtomWithIdx(index) for index in order]
    drawn = drawing.GetNumAtoms()  # hydrogens were added behind them
    return [a.GetIdx() if a.GetIdx() < drawn else a.GetNeighbors()[0].GetIdx() for a in atoms]


def _order(full: Any, molecule: Molecule) -> list[int] | None:
    """Atom of an RDKit molecule with all hydrogens for every atom [N] of a structure, None without one."""
    count = len(molecule)
    if full.GetNumAtoms() != count:
        return None
    if [atom.GetAtomicNum() for atom in full.GetAtoms()] == molecule.numbers.tolist():
        pairs = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in full.GetBonds()]).reshape(-1, 2)
        vectors = molecule.positions[pairs[:, 0]] - molecule.positions[pairs[:, 1]]
        radii = covalent_radii()[molecule.numbers]
        if np.all(np.linalg.norm(vectors, axis=1) < _STRETCH * radii[pairs].sum(1)):
            return list(range(count))
    perceived = perceived_bonds(molecule)
    if perceived is None or perceived.GetNumBonds() != full.GetNumBonds():
        return None
    match = _graph(full).GetSubstructMatch(_graph(perceived))
    return list(match) or None


def _graph(mol: Any) -> Any:
    """Elements and connections alone, since orders of bonds and charges depend on how they were found."""
    from rdkit import Chem

    graph = Chem.RWMol()
    for atom in mol.GetAtoms():
        graph.AddAtom(Chem.Atom(atom.GetAtomicNum()))
    for bond in mol.GetBonds():
        graph.AddBond(bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), Chem.BondType.SINGLE)
    return graph.GetMol()


def _page(hits: Hits, explanations: Sequence[Explanation], sources: Mapping[str, Path | str]) -> str:
    pictures = Pictures()
    names = ", ".join(Path(path).name for path in sources.values()) or "a spectrum"
    heading = f"Candidates for {names}"
    several = len({each.modality for each in explanations}) > 1
    parts: list[tuple[str, str, Child]] = [
        ("read", "What was read", _read(hits, sources)),
        ("candidates", "Candidates", answers_table(pictures, hits.table) if len(hits) else None),
        *(
            (
                f"answer-{each.rank}-{each.modality}",
                _heading(each, several),
                _answer(pictures, each, hits.remarks),
            )
            for each in explanations
        ),
        ("trust", "How far to trust it", _trust(explanations)),
    ]
    links = [element("a", name, href=f"#{id_}") for id_, name, _ in parts]
    return page(
        heading,
        element("h1", heading),
        element("div", listing(_summary(hits)), class_="short"),
        element("nav", listing(links), aria_label="Sections"),
        *(section(name, body, id_=id_) for id_, name, body in parts),
    )


def _summary(hits: Hits) -> Iterator[str]:
    """Yield the main results, one sentence each."""
    yield f"{len(hits)} of {hits.candidates} candidates are listed; the library has {hits.library} molecules."
    first = next(iter(hits), None)
    if first is None:
        yield "No molecule of the library passes the filters."
        return
    confidence = first["confidence"]
    sure = "" if confidence is None else f", confidence {fixed(confidence, 3)}"
    name = first["name"] or first["smiles"] or "no name"
    yield f"First: {name} ({first['formula']}), score {fixed(first['score'], 3)}{sure}."


def _read(hits: Hits, sources: Mapping[str, Path | str]) -> list[Child]:
    files = [
        [element("strong", modality(name).title), ": ", Path(path).name] for name, path in sources.items()
    ]
    ways = ", ".join(
        name if len(hits.ways) == 1 else f"{name} (weight {weight:g})" for name, weight in hits.ways.items()
    )
    return [listing(files), listing(hits.remarks), paragraph(f"Scores are by {ways}.")]


def _heading(each: Explanation, several: bool) -> str:
    return f"{each.rank}. {_label(each).label}" + (f", {modality(each.modality).title}" if several else "")


def _label(each: Explanation) -> Depicted:
    return Depicted(each.formula, each.name, each.smiles, each.formula)


def _answer(pictures: Pictures, each: Explanation, told: Sequence[str]) -> list[Child]:
    """Return what is told of one answer, without the remarks that were told before."""
    kind = modality(each.modality)
    counts = {status: sum(band.status == status for band in each.bands) for status in SYMBOLS}
    alt = (
        f"{kind.title} spectrum of the sample, above, and of {title(each)}, below: {counts['matched']} bands "
        f"in both, {counts['missing']} of the candidate not measured, {counts['extra']} not in the candidate"
    )
    caption = (
        f"{title(each)}. Above what was measured, below the spectrum of the candidate, both with a largest "
        f"value of 1. {SYMBOLS['matched']} bands in both, joined; {SYMBOLS['missing']} bands of the "
        f"candidate that were not measured; {SYMBOLS['extra']} bands that only the sample has."
    )
    return [
        pictures.figure(figure([each], titles=False), alt, caption),
        _bands(each),
        *_motions(pictures, each),
        _regions(each),
        _groups(each),
        listing(remark for remark in each.remarks if remark not in told),
    ]


def _bands(each: Explanation) -> Markup | None:
    kind = modality(each.modality)
    if not each.bands:
        return None

    def place(band: Band) -> float:
        return band.measured if band.measured is not None else band.computed or 0.0

    rows, has_attention = [], each.attention is not None
    for band in sorted(each.bands, key=place, reverse=kind.name == "ir"):
        difference = "–"
        if band.measured is not None and band.computed is not None:
            difference = f"{band.computed - band.measured:+.{2 if kind.unit == 'eV' else 0}f}"
        rows.append(
            [
                f"{SYMBOLS[band.status]} {band.status}",
                position(band.measured, kind),
                fixed(band.measured_height),
                position(band.computed, kind),
                fixed(band.computed_height),
                difference.replace("-", "−"),
                weight(band.weight),
                weight(band.lead),
                *([fixed(band.attention)] if has_attention else []),
                band.motion or "–",
            ]
        )
    caption = (
        f"Bands, in {kind.unit}, with their heights relative to the highest. Positions of the candidate are "
        f"those of its spectrum times {each.scale:g}. Weight: what the score loses, against the mean of the "
        "library, where the band counts as not measured; positive where it carries the answer, negative "
        "where it speaks against it. Lead: the same against the best other answer; positive where the band "
        "tells this one from that."
    )
    head = ["", "measured", "height", "candidate", "height", "difference", "weight", "lead"]
    if has_attention:
        caption += (
            " Attention: what the band receives in the spectrum encoder; 1 is the mean of all places. It "
            "tells where the encoder looks, weight and lead tell what drove the answer."
        )
        head.append("attention")
    return table(caption, [*head, "motion"], rows, numbers=range(1, len(head)))


def _motions(pictures: Pictures, each: Explanation) -> Iterator[Markup]:
    """Yield drawings of the molecule with the atoms that move in its strongest bands."""
    known = [band for band in each.bands if band.motion or band.atoms]
    strongest = sorted(known, key=height, reverse=True)[:_MOTIONS]
    over = drawn_atoms(each.molecule, each.smiles) if each.smiles and strongest else None
    kind = modality(each.modality)
    cards = []
    for band in strongest:
        marked = tuple(sorted({over[atom] for atom in band.atoms})) if over is not None else ()
        drawing = pictures.molecule(_label(each), marked)
        if drawing is None:
            return
        at = position(band.computed if band.measured is None else band.measured, kind)
        text = element("div", f"{SYMBOLS[band.status]} {at} {kind.unit}")
        motion = element("div", band.motion.split(";")[0], class_="soft")  # of its strongest line
        cards.append(element("li", drawing, text, motion, class_="card"))
    if cards:
        which = "marked" if over is not None else "not marked, as structure and drawing could not be matched"
        yield paragraph(f"Strongest bands; atoms that move most are {which}.")
        yield element("ul", cards, class_="row")


def _regions(each: Explanation) -> Markup | None:
    kind = modality(each.modality)
    rows = [
        [f"{position(high, kind)} to {position(low, kind)}", fixed(value)]
        for low, high, value in sorted(each.regions, reverse=True)
    ]
    caption = f"Similarity by region, {kind.unit}: 1 where both have the same bands."
    return table(caption, ["region", "similarity"], rows, numbers=(1,)) if rows else None


def _groups(each: Explanation) -> Markup | None:
    rows = [
        [
            evidence.group,
            "yes" if evidence.present else "no",
            f"{evidence.high:g} to {evidence.low:g}",
            _VERDICTS[evidence.verdict],
            evidence.reason,
        ]
        for evidence in each.groups
    ]
    caption = "Functional groups: whether the candidate has them, and what the measured bands say, in cm⁻¹."
    head = ["group", "in the candidate", "looked at", "verdict", "why"]
    return table(caption, head, rows) if rows else None


def _trust(explanations: Sequence[Explanation]) -> list[Child]:
    texts = [
        "A confidence is the probability that an answer is right provided that the right molecule is in the "
        "library and passes the filters. A molecule that is missing there is not recognised as missing: its "
        "nearest relatives are listed instead, with scores that can be as high. Without confidences, the "
        "index is not calibrated for this search.",
        "Molecules with the same groups have similar spectra. One spectrum names a family more surely than a "
        "molecule; a formula, from a mass spectrum for example, helps more than anything else. Mirror images "
        "and conformers are one answer.",
    ]
    if explanations:
        texts.append(
            "The spectra of candidates are those of the library. Where they are computed, positions are some "
            "tens of cm⁻¹ off and intensities wrong by factors; overtones, combinations and the broad bands "
            "of hydrogen bonds are not in them. A band in both supports a group rather than a molecule; "
            "strong bands that are missing or extra speak against a candidate."
        )
    return [paragraph(text) for text in texts]
