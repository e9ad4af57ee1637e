"""What cclib does not tell about outputs of Gaussian: the jobs of a file, and all of the level of theory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from molspectra.chem.elements import atomic_number
from molspectra.errors import DamagedError, ElementError, FormatError, ValueRangeError
from molspectra.spectra.files.calculation import check_masses

_START = "Entering Gaussian System"
_NEXT_STEP = "Proceeding to internal job step number"
_END = ("Normal termination of Gaussian", "Error termination")
_ROUTE = re.compile(r" #(?!#)")
_MAX_JOBS = 1000
_MAX_ROUTE = 2000  # characters
_DUMMY_ROW = re.compile(
    r"\s*\d+\s+-1\s+\d+(?:\s+-?\d+\.\d+){3}\s*$"
)  # of a structure; cclib stumbles over it
_MASS = re.compile(r"\s*Atom\s+\d+ has atomic number\s+(\d+) and mass\s+(\d+\.\d+)")
_ISOTOPE = re.compile(r"\s*([A-Z][a-z]?)\([^)]*\biso=(\d{1,3}(?:\.\d+)?)\b", re.IGNORECASE)  # of the input
_ENERGY = re.compile(r"\s*SCF Done:\s+E\((?:RO(?=HF|B|M0|PBE|wB|CAM)|R|U)?([^\s=]+)\)\s*=")
_DISPERSION = re.compile(r"(?:Grimme-(D\d)(\(BJ\))?|(Petersson-Frisch)) Dispersion energy=")
_WITH_DISPERSION = re.compile(r"D(?:\d|3BJ)?$", re.IGNORECASE)  # functionals that have it in their name
_MODELS = {"smd": "SMD-IEFPCM", "pcm": "IEFPCM", "iefpcm": "IEFPCM"}  # as cclib names them
_OTHER_MODELS = ("cpcm", "dipole", "ipcm", "scipcm", "onsager")
_ORIENTATION = re.compile(r"\s*(?:Standard|Input|Z-Matrix) orientation:\s*$")


@dataclass(frozen=True)
class GaussianJob:
    """One job of an output.

    Attributes:
        lines: its lines, with the head of the file before them if they have none.
        route: its route section, such as `#p b3lyp/sto-3g freq`.
        earlier: routes of the steps before it, of which it goes on (`opt freq` are two steps).
    """

    lines: list[str]
    route: str
    earlier: str


def gaussian_jobs(lines: list[str]) -> list[GaussianJob]:
    """Split the lines of an output into its jobs.

    Raises:
        InputError: one of them did not end normally, or frequencies that a route asks for are not there.
    """
    parts: list[list[str]] = [[]]
    routed = False  # whether the last part has its route already
    for line in lines:
        ended = parts[-1] and parts[-1][-1].lstrip().startswith(_END)
        if ended or (routed and _START in line):
            parts.append([])
            routed = False
        if not _DUMMY_ROW.match(line):
            parts[-1].append(line)
        routed = routed or _ROUTE.match(line) is not None
    if len(parts) > _MAX_JOBS:
        raise FormatError(f"{len(parts)} jobs, more than {_MAX_JOBS}: split the file")
    if len(parts) > 1 and not any(_begins(line) for line in parts[-1]):
        parts.pop()  # what a queue or shell adds at the end
    first = next((number for number, line in enumerate(lines) if _ROUTE.match(line)), None)
    if first is None:
        raise FormatError("no structure found in it, nor a route section (#)")
    jobs: list[GaussianJob] = []
    for number, part in enumerate(parts, start=1):
        route, alone = _route(part), any(_START in line for line in part)
        if not any(line.lstrip().startswith(_END[0]) for line in part[-1:]):
            which = f" (job {number} of {len(parts)}, {route[:80] or 'without a route'})"
            which = which if len(parts) > 1 else ""
            raise DamagedError(f"the calculation did not end normally, or the file is cut short{which}")
        earlier = "" if alone or not jobs else f"{jobs[-1].earlier} {jobs[-1].route}"
        jobs.append(GaussianJob(part if alone else lines[:first] + part, route, earlier))
    asked = any(re.search(r"\bfreq", job.route, re.IGNORECASE) for job in jobs)
    if asked and not any(line.lstrip().startswith("Frequencies --") for line in lines):
        raise DamagedError("its route asks for frequencies, but there are none: the file is cut short")
    return jobs


def check_atoms(job: GaussianJob) -> None:
    """Refuse a job on something else than a molecule of the usual isotopes.

    Raises:
        InputError: a periodic system, ghost atoms, or masses of other isotopes.
    """
    masses = [match.groups() for line in job.lines if (match := _MASS.match(line))]
    check_masses([int(number) for number, _ in masses], [float(mass) for _, mass in masses])
    asked = [match.groups() for line in job.lines if (match := _ISOTOPE.match(line))]
    check_masses([atomic_number(symbol) for symbol, _ in asked], [float(mass) for _, mass in asked])
    for index, line in enumerate(job.lines):
        if re.match(r"\s*TV\s+-?\d", line, re.IGNORECASE) or "Periodic Boundary Conditions" in line:
            raise ValueRangeError("a periodic structure is not a molecule; calculate the molecule alone")
        if re.match(r"\s*[A-Z][a-z]?-Bq\b", line):
            raise ElementError(f"{line.split()[0]} is a ghost atom: calculate the molecule alone")
        if _ORIENTATION.match(line):
            _check_numbers(job.lines[index + 5 :])


def check_weights(job: GaussianJob, numbers: Sequence[int]) -> None:
    """Refuse masses of other isotopes among those that the job begins with.

    Args:
        job: the job.
        numbers: atomic numbers [N]; the lines `AtmWgt=` hold N masses each time that they are printed.
    """
    lines = (line.lstrip() for line in job.lines)
    words = [word for line in lines if line.startswith("AtmWgt=") for word in line[7:].split()]
    masses = [float(word) for word in words if re.fullmatch(r"\d+\.\d+", word)]
    if len(masses) % len(numbers) == 0:
        check_masses([*numbers] * (len(masses) // len(numbers)), masses)


def _check_numbers(rows: list[str]) -> None:
    """Refuse translation vectors and ghost atoms among the rows of a structure (number, atomic number, …)."""
    for row in rows:
        words = row.split()
        if len(words) < 5 or not words[0].isdigit():
            return
        if words[1] == "-2":
            raise ValueRangeError("a periodic structure is not a molecule; calculate the molecule alone")
        if words[1] == "0":
            raise ElementError(f"atom {words[0]} is a ghost or dummy atom: calculate the molecule alone")


def gaussian_method(job: GaussianJob, methods: list[str]) -> str:
    """Return functional, or method after Hartree-Fock, with dispersion and changed parameters.

    Args:
        job: the job.
        methods: methods as cclib names them; DFT and HF do not count.
    """
    energies = [match[1] for line in job.lines if (match := _ENERGY.match(line))]
    correlated = [method for method in methods if method not in ("HF", "DFT")]
    scf = energies[-1] if energies else "unknown method"
    method = correlated[-1] if scf == "HF" and correlated else scf
    parameters = [
        word.strip()
        for words in re.findall(r"\biop\s*=?\s*\(([^)]*)\)", job.route, re.IGNORECASE)
        for word in words.split(",")
        if word.strip().startswith("3/")  # overlay 3 holds basis and functional
    ]
    return f"{method}{_dispersion(job, method)}{''.join(f' iop({word})' for word in parameters)}"


def _dispersion(job: GaussianJob, method: str) -> str:
    """Return the correction for dispersion, such as `-GD3BJ`; "" for none, or if the method names it."""
    if _WITH_DISPERSION.search(method):
        return ""
    for line in job.lines:
        match = _DISPERSION.search(line)
        if match:
            return "-PFD" if match[3] else f"-G{match[1]}{'BJ' if match[2] else ''}"
    asked = re.search(
        r"\bem(?:piricaldispersion)?\s*[=(][\s(]*(\w+)", f"{job.earlier} {job.route}", re.IGNORECASE
    )
    return f"-{asked[1].upper()}" if asked else ""


def gaussian_solvent(job: GaussianJob) -> dict[str, str]:
    """Return model and name of the solvent in the route, keyed as in cclib; empty if there is none."""
    found: dict[str, str] = {}
    routes = f"{job.earlier} {job.route}"
    for match in re.finditer(r"\bscrf\b\s*=?\s*(\([^)]*\)|[^\s()]+(?:\([^)]*\))?)?", routes, re.IGNORECASE):
        options = re.split(r"[,()\s]+", (match[1] or "pcm").lower().strip("()"))
        named = next((word.partition("=")[2] for word in options if word.startswith("solvent=")), "water")
        model = next((word for word in options if word in _MODELS or word in _OTHER_MODELS), "pcm")
        if "check" not in options:
            found = {"solvent_model": _MODELS.get(model, model.upper()), "solvent_name": named}
    return found


def excited_method(job: GaussianJob) -> str:
    """Return the method of the excited states in the route; cclib finds it in some outputs only."""
    for keyword, method in (("tda", "TDA"), ("td", "TD-DFT"), ("cis", "CIS")):
        if re.search(rf"\b{keyword}\b", job.route, re.IGNORECASE):
            return method
    return "excited states"


def index_of_reference(job: GaussianJob) -> int:
    """Return which structure and energy of the job the results belong to: the last one, as a rule.

    Frequencies belong to the first one: numerical and anharmonic ones go on with displaced structures.
    """
    frequencies = re.search(r"\bfreq", job.route, re.IGNORECASE)
    optimisation = re.search(r"\bf?opt\b", job.route, re.IGNORECASE)
    return 0 if frequencies and not optimisation else -1


def is_anharmonic(job: GaussianJob) -> bool:
    """Return whether anharmonic frequencies were calculated beside the harmonic ones."""
    return re.search(r"\banharm", f"{job.earlier} {job.route}", re.IGNORECASE) is not None


def has_general_basis(job: GaussianJob) -> bool:
    """Return whether the basis set was given atom by atom, so that it has no name."""
    return any("General basis read from cards" in line for line in job.lines)


def _begins(line: str) -> bool:
    """Return whether the line shows that a job begins."""
    return _START in line or _NEXT_STEP in line or _ROUTE.match(line) is not None


def _route(lines: list[str]) -> str:
    """Return the route section, which the program wraps at any letter; "" if there is none."""
    for number, line in enumerate(lines):
        if _ROUTE.match(line):
            words = [line[1:]]
            for more in lines[number + 1 : number + 20]:
                if not more.strip(" -"):
                    break
                words.append(more[1:])
            return "".join(words).strip()[:_MAX_ROUTE]
    return ""
