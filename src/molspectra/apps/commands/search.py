"""`molspectra search`: the molecules of an index that fit the spectra of a sample."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from molspectra.apps.commands.parser import CommandParser
from molspectra.errors import InputError, SettingError, ValueRangeError, hint
from molspectra.printable import say
from molspectra.spectra.modality import DOS, MODALITIES

if TYPE_CHECKING:  # only named below
    from molspectra.search.hits import Hits
    from molspectra.search.library import Library
    from molspectra.search.pipeline import Pipeline
    from molspectra.search.query import Prepared
    from molspectra.simulation.api import Level

MEASURED = {name: kind for name, kind in MODALITIES.items() if name not in DOS}
"""Modalities that a sample can have; nothing measures a density of states."""

EXPLAINED = {"report": "page", "plot": "figure", "bands": "explain"}
"""Options for files that tell why the first answers fit, and the modules of `search` that write them."""

_TOP, _TOP_OF_EACH = 25, 3  # answers; and those of each of several samples that are shown


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit code."""
    try:
        options = _parser().parse_args(arguments)
    except SettingError as error:
        if "required: DIR" not in str(error):
            raise
        raise SettingError("name the index before the spectra: molspectra search DIR --ir FILE") from None
    files = {name: getattr(options, name) for name in MEASURED if getattr(options, name) is not None}
    _check(options, files)
    samples = _names(next(iter(files.values())))
    _check_files(options, len(files), len(samples))

    from molspectra.search.hits import of_samples
    from molspectra.search.library import Library
    from molspectra.search.pipeline import Pipeline

    pipeline = Pipeline(
        choice=options.pipeline,
        scale=options.scale,
        baseline=options.baseline,
        smooth=options.smooth,
        window=_ranges(options.range, files),
    )
    answer = _answering(options, pipeline)
    failures: dict[str, InputError] = {}
    prepared = _read(options, files, samples, pipeline, failures)
    found: dict[str, Hits] = {}
    if prepared:
        library = Library(options.index, options.model, device=options.device)
        for sample, spectra in prepared.items():
            try:
                found[sample] = answer(library, spectra)
            except InputError as error:
                failures[sample] = error
    _tell(failures, samples)
    if not found:
        return 2
    hits = of_samples(found) if len(samples) > 1 else found[samples[0]]
    for remark in hits.remarks:
        say(f"molspectra: {remark}", error=True)
    if options.out is not None:
        hits.write(options.out, overwrite=options.overwrite)
    if any(getattr(options, name) for name in EXPLAINED):
        _explain(options, library, hits, prepared[samples[0]], pipeline)
    say(hits.text(_TOP_OF_EACH if len(samples) > 1 and options.top is None else None))
    of = f"of {hits.candidates} candidates, from {hits.library} molecules in {options.index}"
    say(f"{len(hits)} {of}" if len(samples) == 1 else f"{len(found)} of {len(samples)} samples; answers {of}")
    return 2 if failures else 0


def _check(options: argparse.Namespace, files: Mapping[str, Sequence[str]]) -> None:
    """Refuse options that do not go together."""
    if not files:
        raise SettingError(f"give at least one spectrum: {', '.join(map(_option, MEASURED))}")
    if len(set(map(len, files.values()))) > 1:
        counts = ", ".join(f"{_option(name)} has {len(paths)}" for name, paths in files.items())
        raise SettingError(f"every sample needs a file of each kind, but the numbers differ: {counts}")
    if options.top is not None and options.top < 1:
        raise ValueRangeError(f"--top: at least one answer must be asked for, not {options.top}")
    if options.rerank is None and options.level is not None:
        raise SettingError("--level is that of --rerank; give --rerank too")
    if options.rerank is not None:
        from molspectra.search.rerank import check  # now, before a model is loaded

        check(options.rerank, options.by or ())
    if options.mixture is None and options.among is not None:
        raise SettingError("--among names what a mixture may be made of; give --mixture too")
    ranked = ("by", "weights", "top", "approximate", "rerank", *EXPLAINED)
    given = [f"--{name}" for name in ranked if getattr(options, name)]
    if options.mixture is not None and given:
        raise SettingError(
            f"{given[0]} is not for a --mixture, which is fitted by shape and shown as a whole"
        )


def _answering(
    options: argparse.Namespace, pipeline: Pipeline
) -> Callable[[Library, Mapping[str, Prepared]], Hits]:
    """What is done with each sample."""
    from molspectra.search.mixture import mixture
    from molspectra.search.rerank import rerank

    filters = {name: getattr(options, name) for name in ("formula", "mass", "within", "elements", "contains")}
    by = _scores(options.by, options.weights)
    top = _TOP if options.top is None else options.top

    def answer(library: Library, spectra: Mapping[str, Prepared]) -> Hits:
        if options.mixture is not None:
            among = options.among
            return mixture(
                library, spectra, components=options.mixture, among=among, pipeline=pipeline, **filters
            )
        hits = library.search(
            spectra,
            by=by,
            top=options.rerank or top,
            approximate=options.approximate,
            pipeline=pipeline,
            **filters,
        )
        if options.rerank is None:
            return hits
        level: Level = "scaled" if options.level is None else options.level
        hits = rerank(library, hits, spectra, count=options.rerank, level=level, pipeline=pipeline)
        return replace(hits, table=hits.table.slice(0, top))

    return answer


def _read(
    options: argparse.Namespace,
    files: Mapping[str, Sequence[str]],
    samples: Sequence[str],
    pipeline: Pipeline,
    failures: dict[str, InputError],
) -> dict[str, dict[str, Prepared]]:
    """The spectra of each sample by modality; those that cannot be read become failures."""
    from molspectra.search.query import read_query

    units = _by_modality(options.unit, "--unit")
    quantities = _by_modality(options.quantity, "--quantity")
    prepared = {}
    for number, sample in enumerate(samples):
        try:
            prepared[sample] = {
                name: read_query(
                    paths[number],
                    name,
                    unit=units.get(name),
                    quantity=quantities.get(name),
                    reflectance=options.reflectance,
                    pipeline=pipeline,
                )
                for name, paths in files.items()
            }
        except InputError as error:
            failures[sample] = error
    return prepared


def _names(paths: Sequence[str]) -> list[str]:
    """Names of samples by their files: the ends of the paths that are long enough to differ.

    Raises:
        SettingError: a file is given twice.
    """
    parts = [Path(os.path.abspath(path)).parts for path in paths]
    for path, own in zip(paths, parts, strict=True):
        if parts.count(own) > 1:
            raise SettingError(f"{path}: given twice; each file is one sample")
    names = []
    for own in parts:
        same = [each for each in parts if each[-1] == own[-1]]
        length = next(n for n in range(1, len(own) + 1) if len({each[-n:] for each in same}) == len(same))
        names.append(str(Path(*own[-length:])))
    return names


def _tell(failures: Mapping[str, InputError], samples: Sequence[str]) -> None:
    """Print what is wrong with each sample; raise it where it is wrong with all, as with the only one."""
    reasons = [str(error) for error in failures.values()]
    if len(failures) == len(samples) and len(set(reasons)) == 1:
        raise next(iter(failures.values()))
    for sample, reason in zip(failures, reasons, strict=True):
        where = "" if sample in reason else f"{sample}: "
        say(f"molspectra: error: {where}{reason}", error=True)


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        "search",
        description="Rank the molecules of an index by spectra of a sample, or of several samples, each of "
        "which has one file of every kind. The index comes before the files.",
    )
    parser.add_argument("index", metavar="DIR", help="index that molspectra index made")
    for name, kind in MEASURED.items():
        parser.add_argument(
            _option(name),
            dest=name,
            nargs="+",
            metavar="FILE",
            help=f"{kind.title}: JCAMP-DX, text, file of an instrument, or output of a program",
        )
    parser.add_argument(
        "--by",
        nargs="+",
        help="ways to score: match, shape, embedding, learned, cosine, sid [match; shape without infrared]",
    )
    parser.add_argument("--weights", nargs="+", type=float, default=None, help="weight of each way")
    parser.add_argument("--formula", help="only this molecular formula")
    parser.add_argument("--mass", type=float, help="only this exact mass, in Da")
    parser.add_argument("--within", default="10ppm", help="tolerance of --mass, such as 10ppm or 0.01Da")
    parser.add_argument("--elements", nargs="+", help="no other elements than these")
    parser.add_argument("--contains", nargs="+", help="elements that must be there")
    parser.add_argument(
        "--top",
        type=int,
        help="number of answers for each sample [25; of several samples, 3 are shown and 25 written]",
    )
    parser.add_argument(
        "--rerank",
        type=int,
        metavar="K",
        help="simulate the first K answers and rank them by the new spectra",
    )
    parser.add_argument(
        "--level",
        choices=("gfn2", "scaled", "dft"),
        help="level of theory of --rerank; dft takes minutes for each [scaled]",
    )
    parser.add_argument(
        "--mixture",
        type=int,
        choices=range(2, 6),
        help="fit the spectrum as a sum of those of at most so many molecules",
    )
    parser.add_argument(
        "--among", nargs="+", metavar="MOLECULE", help="names or SMILES that a mixture may be made of [all]"
    )
    parser.add_argument("--out", metavar="FILE", help="also write them: .csv, .parquet or .json")
    parser.add_argument(
        "--report", metavar="FILE", help="also write a page that shows why the first fit: .html"
    )
    parser.add_argument(
        "--plot", metavar="FILE", help="also draw the first with their bands: .png, .svg, .pdf"
    )
    parser.add_argument("--bands", metavar="FILE", help="also write the bands of the first: .csv, .parquet")
    parser.add_argument(
        "--explain", type=int, metavar="N", help="how many --report, --plot and --bands show [3]"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
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


def _check_files(options: argparse.Namespace, spectra: int, samples: int) -> None:
    """Refuse files that cannot be written, before anything is computed; answers are explained by spectrum."""
    several = [name for name in EXPLAINED if getattr(options, name) is not None and samples > 1]
    if several:
        raise SettingError(f"--{several[0]} is of one sample, but {samples} are given: search each alone")
    from molspectra.data.output import free_path

    paths: dict[Path, str] = {}
    for name, module in {"out": "hits", **EXPLAINED}.items():
        if getattr(options, name) is None:
            continue
        suffixes = import_module(f"molspectra.search.{module}").SUFFIXES  # those with matplotlib are slow
        path = free_path(getattr(options, name), suffixes, overwrite=options.overwrite).absolute()
        if path in paths:
            raise SettingError(f"--{paths[path]} and --{name} name the same file; choose two names")
        paths[path] = name
    if options.explain is None:
        return
    if not EXPLAINED.keys() & set(paths.values()):
        raise SettingError("--explain: give --report, --plot or --bands, which it is for")
    if options.explain < 1:
        raise ValueRangeError(f"--explain: at least one answer must be asked for, not {options.explain}")
    if options.plot is not None:
        from molspectra.search.figure import MOST

        if options.explain * spectra > MOST:
            raise ValueRangeError(f"--explain {options.explain}: --plot shows at most {MOST // spectra}")


def _explain(
    options: argparse.Namespace,
    library: Library,
    hits: Hits,
    prepared: Mapping[str, Prepared],
    pipeline: Pipeline,
) -> None:
    """Write why the first answers fit, to the files that were asked for."""
    from molspectra.search.explain import explain, write_bands
    from molspectra.search.figure import write_figure
    from molspectra.search.page import write_page

    count = 3 if options.explain is None else options.explain
    explanations = explain(library, hits, prepared, pipeline=pipeline, count=count)
    if options.report is not None:
        files = {name: getattr(options, name)[0] for name in prepared}
        write_page(options.report, hits, explanations, files, overwrite=options.overwrite)
    if options.plot is not None:
        write_figure(options.plot, explanations, overwrite=options.overwrite)
    if options.bands is not None:
        write_bands(options.bands, explanations, overwrite=options.overwrite)


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
