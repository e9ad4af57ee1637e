"""Bruker OPUS files (.0, .1, …) through the package `brukeropus`.

Its function `read_opus` loops for ever on some damaged files and takes integers for floats, so the blocks are
checked here before its parts read them.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from molspectra.errors import DamagedError, FormatError, MissingExtraError, UnitError
from molspectra.spectra.files.binary import Bytes, check_count, plain
from molspectra.spectra.files.measured import MeasuredSpectrum

MARK = b"\n\n\xfe\xfe"
"""First bytes of a file."""

_MAX_BLOCKS = 1000
# numbers in the six that are the type of a block
_COMPLEX = (1, 2)  # real or imaginary part
_REFERENCE = 2
_SAMPLE = 10
_FORMS = (0, 4)  # plain, compact
_UNITS = {"WN": "cm⁻¹", "MI": "µm"}
_QUANTITIES = {
    4: "absorbance",
    5: "transmittance",
    6: "absorptivity",  # Kubelka-Munk
    10: "intensity",
    12: "reflectance",
    19: "absorbance",
}
_RAMAN = 10


def read_opus(path: Path, file: Bytes, unit: str | None) -> list[MeasuredSpectrum]:
    """Read the results in a file: absorbance, transmittance, reflectance, Kubelka-Munk or Raman spectra.

    Single channels, interferograms, phases, derivatives and series are left out, and the remarks name them.
    `unit` is not needed: a file tells its own.

    Raises:
        InputError: the file is damaged, or holds no result; or the package brukeropus is not installed.
    """
    try:
        block, data, parse = (import_module(f"brukeropus.file.{name}") for name in ("block", "data", "parse"))
    except ImportError as error:
        raise MissingExtraError(
            "a file of Bruker OPUS; needs the package brukeropus; pip install 'molspectra[files]'"
        ) from error
    blocks = _blocks(file, block.FileBlock, parse.get_block_type)
    titles = [each.data.get("snm") for each in blocks if each.type[2] == _SAMPLE]
    title = next((plain(text) for text in titles if isinstance(text, str)), "") or path.stem
    pairs = block.pair_data_and_status_blocks(blocks)
    paired = {id(values) for values, _ in pairs}
    spectra = [each for each in blocks if each.is_data() or each.is_data_series()]
    left_out = [f"{each.get_label()} without parameters" for each in spectra if id(each) not in paired]
    results = []
    for values, status in pairs:
        part, channel, _, kind, derivative, form = values.type
        if (
            kind not in _QUANTITIES
            or part in _COMPLEX
            or channel == _REFERENCE
            or derivative
            or form not in _FORMS
        ):
            left_out.append(values.get_label())
            continue
        facts = status.data
        if facts["dpf"] != 1:
            raise FormatError(
                f"its numbers are of the form {facts['dpf']!r} (DPF), and only 1 (floats) is read"
            )
        if facts["dxu"] not in _UNITS:
            raise UnitError(f"the unit of its axis is {facts['dxu']!r} (DXU); known: {', '.join(_UNITS)}")
        if facts["npt"] < 2 or not facts["csf"]:
            raise DamagedError(f"damaged: {facts['npt']} points, scaled by {facts['csf']:g}")
        unit_of_file = _UNITS[facts["dxu"]]
        results.append((kind, unit_of_file, data.Data(values, status, key="", vel=0)))
    names = ", ".join(sorted(set(left_out)))
    if not results:
        raise FormatError(
            f"no absorbance, transmittance, reflectance or Raman spectrum, but: {names or 'none'}"
        )
    check_count(len(results))
    remarks = (f"left out: {names}",) if left_out else ()
    return [
        MeasuredSpectrum(
            result.x,
            result.y,
            unit_of_file,
            _QUANTITIES[kind],
            "raman" if kind == _RAMAN else None,
            title,
            f"{path}, {result.label}",
            remarks,
            {"YUNITS": _QUANTITIES[kind]},
        )
        for kind, unit_of_file, result in results
    ]


def _blocks(file: Bytes, block: Any, block_type: Callable[[int], tuple[int, ...]]) -> list[Any]:
    """Return the spectra, their parameters and those of the sample in a file, read by brukeropus.

    Args:
        file: the file.
        block: brukeropus' class of a block.
        block_type: its function from the number of a type to a tuple.

    Raises:
        DamagedError: a block lies outside the file or overlaps others, or cannot be read.
    """
    start, most, _ = (int(number) for number in file.numbers("3i", 12))
    blocks, room = [], len(file.data)
    for index in range(min(most, _MAX_BLOCKS)):
        kind, words, offset = (int(number) for number in file.numbers("Iii", start + 12 * index))
        if offset <= 0:
            break
        whole = file.part(offset, 4 * words)
        each = block(whole.data, block_type(kind), 4 * words, 0)
        each.start = offset
        is_parameters = each.is_data_status() or each.type[2] == _SAMPLE
        if each.is_data_series():
            blocks.append(each)  # to be named, not read
            continue
        if not is_parameters and not each.is_data():
            continue
        room -= 4 * words
        if is_parameters:
            _check_parameters(whole)
        each.parse()
        if each.data is None or room < 0:
            raise DamagedError(f"damaged: {each.get_label()} at byte {offset} cannot be read")
        blocks.append(each)
    return blocks


def _check_parameters(block: Bytes) -> None:
    """Refuse parameters with a size below zero, which would never end, or behind the end of their block."""
    position = 0
    while position < len(block.data) and block.data[position : position + 3] != b"END":
        size = 2 * block.integer("h", position + 6)
        block.part(position + 8, size)
        position += 8 + size
