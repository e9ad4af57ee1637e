"""`molspectra search`: the molecules of an index that fit the spectra of a sample."""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import replace

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import SettingError, hint
from molspectra.printable import say
from molspectra.spectra.modality import DOS, MODALITIES

MEASURED = {name: kind for name, kind in MODALITIES.items() if name not in DOS}
"""Modalities that a sample can have; nothing measures a density of states."""


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    files = {name: getattr(options, name) for name in MEASURED if getattr(options, name) is not None}
    if not files:
        raise SettingError(f"give at least one spectrum: {', '.join(map(_option, MEASURED))}")

    from molspectra.data.output import free_path
    from molspectra.search.hits import SUFFIXES
    from molspectra.search.library import Library
    from molspectra.search.pipeline import Pipeline
    from molspectra.search.query import read_query

    if options.out is not None:
        free_path(options.out, SUFFIXES, overwrite=options.overwrite)
    by = _scores(options.by, options.weights)
    units = _by_modality(options.unit, "--unit")
    quantities = _by_modality(options.quantity, "--quantity")
    pipeline = Pipeline(
        choice=options.pipeline,
        scale=options.scale,
        baseline=options.baseline,
        smooth=options.smooth,
        window=_ranges(options.range, files),
    )
    prepared = {
        name: read_query(
            path,
            name,
            unit=units.get(name),
            quantity=quantities.get(name),
            reflectance=options.reflectance,
            pipeline=pipeline,
        )
        for name, path in files.items()
    }
    library = Library(options.index, options.model, device=options.device)
    hits = library.search(
        prepared,
        by=by,
        pipeline=pipeline,
        formula=options.formula,
        mass=options.mass,
        within=options.within,
        elements=options.elements,
        contains=options.contains,
        top=options.rerank or options.top,
        approximate=options.approximate,
    )
    if options.rerank is not None:
        from molspectra.search.rerank import rerank

        hits = rerank(library, hits, prepared, count=options.rerank, level=options.level, pipeline=pipeline)
        hits = replace(hits, table=hits.table.slice(0, options.top))
    for remark in hits.remarks:
        say(f"molspectra: {remark}", error=True)
    if options.out is not None:
        hits.write(options.out, overwrite=options.overwrite)
    say(hits.text())
    say(f"{len(hits)} of {hits.candidates} candidates, from {hits.library} molecules in {options.index}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser("search", description="Rank the molecules of an index by spectra of one sample.")
    parser.add_argument("index", metavar="DIR", help="index that molspectra index made")
    for name, kind in MEASURED.items():
        parser.add_argument(
            _option(name),
            dest=name,
            metavar="FILE",
            help=f"{kind.title}: JCAMP-DX, text, file of an instrument, or output of a program",
        )
    parser.add_argument(
        "--by",
        nargs="+",
        help="ways to score: shape, embedding, learned, cosine, sid [shape; embedding without spectra]",
    )
    parser.add_argument("--weights", nargs="+", type=float, default=None, help="weight of each way")
    parser.add_argument("--formula", help="only this molecular formula")
    parser.add_argument("--mass", type=float, help="only this exact mass, in Da")
    parser.add_argument("--within", default="10ppm", help="tolerance of --mass, such as 10ppm or 0.01Da")
    parser.add_argument("--elements", nargs="+", help="no other elements than these")
    parser.add_argument("--contains", nargs="+", help="elements that must be there")
    parser.add_argument("--top", type=int, default=25, help="number of answers")
    parser.add_argument(
        "--rerank",
        type=int,
        metavar="K",
        help="simulate the first K answers and rank them by the new spectra",
    )
    parser.add_argument(
        "--level",
        choices=("gfn2", "scaled", "dft"),
        default="scaled",
        help="level of theory of --rerank; dft takes minutes for each [scaled]",
    )
    parser.add_argument("--out", metavar="FILE", help="also write them: .csv, .parquet or .json")
    parser.add_shared("--overwrite")
    parser.add_argument(
        "--unit",
        nargs="+",
        default=[],
        help="axis of text files without one, for all or as ir=cm-1 uv-vis=nm",
    )
    parser.add_argument(
        "--quantity", nargs="+", default=[], help="values of text files, for all or as ir=transmittance"
    )
    parser.add_argument(
        "--reflectance",
        choices=("refuse", "log", "kubelka-munk"),
        default="refuse",
        help="how to convert one",
    )
    parser.add_argument(
        "--pipeline",
        choices=("auto", "measured", "none"),
        default="auto",
        help="steps for all spectra by what their files say, those of a measured one, or none [auto]",
    )
    parser.add_argument(
        "--scale",
        type=float,
        help="factor on the library's frequencies, such as 0.97 [shape: the best of 0.95 to 1.03]",
    )
    parser.add_argument(
        "--baseline",
        type=float,
        help="width of the baseline of measured spectra; 0 for none [40 line widths]",
    )
    parser.add_argument(
        "--smooth", type=float, default=0.0, help="window of a smoothing filter of measured spectra [none]"
    )
    parser.add_argument(
        "--range",
        nargs="+",
        default=[],
        metavar="LOW,HIGH",
        help="part that is compared, for all or as ir=600,3200",
    )
    parser.add_argument("--approximate", action="store_true", help="use the approximate index")
    parser.add_argument("--model", metavar="RUN", help="refuse an index that another model has made")
    parser.add_shared("--device")
    return parser


def _by_modality(words: Sequence[str], option: str) -> dict[str, str]:
    """Return values by modality, from words "modality=value", or "value" for all other modalities."""
    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        key = name.lower().replace("-", "_")
        if not equals:
            values = dict.fromkeys(MEASURED, word) | values
        elif key in MEASURED:
            values[key] = value
        else:
            raise SettingError(f"{option} {word}: {hint(key, MEASURED)}")
    return values


def _ranges(words: Sequence[str], files: Iterable[str]) -> dict[str, tuple[float, float]]:
    """Return ranges by modality, from words "modality=low,high", or "low,high" for all of the files."""
    ranges = {}
    for name, text in _by_modality(words, "--range").items():
        try:
            low, high = map(float, text.split(","))
        except ValueError:
            raise SettingError(f"--range {text}: two numbers are needed, such as 600,3200") from None
        if name in files:
            ranges[name] = low, high
    return ranges


def _scores(
    by: Sequence[str] | None, weights: Sequence[float] | None
) -> Sequence[str] | dict[str, float] | None:
    """Return the scores to rank by, with their weights if given."""
    if weights is None:
        return by
    if by is None:
        raise SettingError("--weights: name the ways they belong to with --by")
    if len(weights) != len(by) or len(set(by)) < len(by):
        raise SettingError(f"--weights: one for each of the {len(by)} ways of --by is needed, each way once")
    return dict(zip(by, weights, strict=True))


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
