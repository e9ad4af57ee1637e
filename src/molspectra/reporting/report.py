"""The report: one self-contained HTML file about runs, their results, and how to read them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from molspectra.data.atomic import atomic_file, naming
from molspectra.reporting import sections, wording
from molspectra.reporting.content import ReportContent
from molspectra.reporting.drawing import Pictures
from molspectra.reporting.limits import limits
from molspectra.reporting.markup import Child, details, element, listing, page, section, table
from molspectra.reporting.tables import STAGES
from molspectra.reporting.wording import duration, mean_sd


def write_report(path: str | Path, content: ReportContent) -> Path:
    """Write the report atomically; the same content gives the same bytes.

    Args:
        path: of the HTML file; its directory is created where it is missing.
        content: of the report; empty parts are left out.

    Returns:
        The path.

    Raises:
        InputError: the file cannot be written.
    """
    path = Path(path)
    text = _report(content)
    with naming(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(text.encode())
    return path


def _report(content: ReportContent) -> str:
    pictures, searches = Pictures(), content.retrievals
    parts: list[tuple[str, str, Child]] = [
        ("what", "What was run", _runs(content)),
        ("results", "Results", [sections.result(pictures, result) for result in content.tables]),
        ("curves", "Learning curves", sections.learning(pictures, content.curves)),
        ("parity", "Predicted against computed", sections.parities(pictures, content.tables)),
        ("losses", "Pre-training losses", sections.losses(content.losses)),
        ("spectra", "Spectra with masked patches", sections.reconstructions(pictures, content)),
        ("retrieval", "Finding molecules by spectra", [sections.retrieval(pictures, r) for r in searches]),
        (
            "embeddings",
            "Embeddings by themselves",
            [sections.representation(pictures, each) for each in content.representations],
        ),
        ("simulated", "Simulated here", sections.simulated(pictures, content.simulated)),
        ("limits", "How to read this, and its limits", listing(limits(content))),
    ]
    shown = [(id_, title, body) for id_, title, body in parts if body]
    links = [element("a", title, href=f"#{id_}") for id_, title, _ in shown]
    summary = listing(_summary(content))
    return page(
        content.title,
        element("h1", content.title),
        element("div", summary, class_="short") if summary else None,
        element("nav", listing(links), aria_label="Sections"),
        *(section(title, body, id_=id_) for id_, title, body in shown),
    )


def _summary(content: ReportContent) -> Iterator[str]:
    """Yield the main results, one sentence each."""
    for result in content.tables:
        errors = ", ".join(f"{arm.label} {mean_sd(list(arm.mae.values()))}" for arm in result.arms)
        settings = f" ({result.settings})" if result.settings else ""
        seeds = max((len(arm.scores) for arm in result.arms), default=0)
        what = f"Mean absolute error of the {result.target}{settings} in {result.unit}"
        yield f"{what}, {seeds} seed{'s' if seeds != 1 else ''}: {errors}."
        for first, second in wording.comparisons(result):
            yield wording.verdict(first, second)
    for search in content.retrievals:
        yield wording.retrieval_sentences(search)[0]
    if content.wall_seconds is not None:
        yield f"All of it took {duration(content.wall_seconds)}."


def _runs(content: ReportContent) -> list[Child]:
    """Return the table of runs, and their machines, versions, data and commits."""
    runs = content.runs
    if not runs:
        return []
    rows = [
        [
            run.name,
            STAGES.get(run.stage, run.stage),
            run.start,
            str(run.seed),
            f"{run.steps}" if run.finished else f"{run.steps} (unfinished)",
            duration(run.seconds),
            " / ".join(str(run.molecules.get(part, "–")) for part in ("train", "val", "test")),
        ]
        for run in runs
    ]
    settings = [[element("h3", run.name), element("pre", run.settings)] for run in runs if run.settings]
    head = ["run", "stage", "started from", "seed", "steps", "time", "train / val / test"]
    facts: list[tuple[str, str]] = []
    for label, values in (
        ("Machine", [run.machine for run in runs]),
        ("Commit", [run.commit or "unknown" for run in runs]),
        ("Data", [f"{run.store}, SHA-256 {run.data_hash}" for run in runs]),
        (
            "Versions",
            [", ".join(f"{name} {version}" for name, version in run.versions.items()) for run in runs],
        ),
    ):
        facts += [(label, value) for value in dict.fromkeys(values)]
    levels: dict[str, list[str]] = {}
    for name, level in content.levels.items():
        levels.setdefault(level, []).append(sections.modality_title(name))
    facts += [("Level of theory", f"{level}: {', '.join(names)}") for level, names in levels.items()]
    return [
        table("Runs; time is that of training.", head, rows, numbers=(3, 4, 5, 6)),
        listing([[element("strong", label), ": ", value] for label, value in facts]),
        listing(content.notes),
        details("Settings of every run", settings) if settings else None,
    ]
