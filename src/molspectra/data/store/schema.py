"""Description of a store's columns, and the Arrow schema that records it in the file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import pyarrow as pa

from molspectra.errors import DamagedError, FormatError, InputError, SettingError, check_format
from molspectra.spectra.modality import MODALITIES, modality

FORMAT = 1
"""Version of the file format; a reader refuses any other."""

HASH_KEY = b"sha256"
"""Key of the running content hash in the custom metadata of each record batch."""

_KEY = b"molspectra"
_DTYPES = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}")
_MAX_JSON = 1 << 20


@dataclass(frozen=True)
class Quantity:
    """Unit and origin of the numbers of one column.

    Attributes:
        unit: as text, "" for a pure number.
        level: level of theory or instrument, "" where unknown.
    """

    unit: str
    level: str = ""


SPLIT = Quantity("", "part of a split: 0 training, 1 validation, 2 test")
"""Of a column that is no property but tells the part of every row; a row without a value is in none."""


@dataclass(frozen=True)
class Metadata:
    """Description of a store: origin, units and types of its columns.

    Attributes:
        source: where the data come from.
        licence: terms of use.
        level: level of theory of the geometries.
        lines: modalities stored as lines, each with its level of theory.
        samples: modalities stored as samples on their axis, each with its level of theory or instrument.
        properties: scalar properties of a molecule (float64; a molecule may lack one).
        forces: unit and level of the force on each atom, None without forces.
        position_dtype: "float32" or "float64", of the coordinates in Å.
        sample_dtype: "float16" or "float32", of sampled spectra.
        notes: further facts in words: program versions, seeds, commands.

    Raises:
        InputError: if a modality or dtype is unknown, a modality is given twice, or the name of a property is
            not one of a column.
    """

    source: str
    licence: str
    level: str = ""
    lines: Mapping[str, str] = field(default_factory=dict)
    samples: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, Quantity] = field(default_factory=dict)
    forces: Quantity | None = None
    position_dtype: str = "float32"
    sample_dtype: str = "float32"
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names and dtypes."""
        for name in (*self.lines, *self.samples):
            modality(name)
        for name in self.lines:
            if name in self.samples:
                raise SettingError(f"a store holds {name} spectra as lines or as samples, not both")
        if self.position_dtype not in ("float32", "float64"):
            raise SettingError(f"positions are stored as float32 or float64, not {self.position_dtype!r}")
        if self.sample_dtype not in ("float16", "float32"):
            raise SettingError(f"samples are stored as float16 or float32, not {self.sample_dtype!r}")
        taken = {field.name for field in _fixed_fields(self)}
        for name in self.properties:
            if not _NAME.fullmatch(name) or name in taken:
                raise SettingError(f"no property can be called {name!r}; use letters, digits and _")

    @property
    def modalities(self) -> tuple[str, ...]:
        """Names of the stored modalities, in the order of `MODALITIES`."""
        return tuple(name for name in MODALITIES if name in self.lines or name in self.samples)

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the possible targets of a batch: the properties, and "forces" if there are any."""
        return (*self.properties, *(("forces",) if self.forces else ()))


def schema_of(metadata: Metadata) -> pa.Schema:
    """Return the Arrow schema of a store with that description."""
    scalars = [
        pa.field(name, pa.float64(), metadata=_described("property", quantity))
        for name, quantity in metadata.properties.items()
    ]
    facts = {
        "format": FORMAT,
        "source": metadata.source,
        "licence": metadata.licence,
        "level": metadata.level,
        "notes": dict(sorted(metadata.notes.items())),
    }
    text = json.dumps(facts, ensure_ascii=False, sort_keys=True)
    return pa.schema([*_fixed_fields(metadata), *scalars], metadata={_KEY: text.encode()})


def metadata_of(schema: pa.Schema) -> Metadata:
    """Return the description recorded in a schema.

    Raises:
        FormatError: if it is not the schema of a store, or of another version of the format.
        DamagedError: if the description cannot be read or does not fit the columns.
    """
    text = (schema.metadata or {}).get(_KEY)
    if text is None or len(text) > _MAX_JSON:
        raise FormatError("an Arrow file, but not a molspectra store")
    try:
        metadata = _parsed(schema, text)
    except FormatError:
        raise
    except InputError as error:
        raise DamagedError(str(error)) from error
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedError("the description of its columns is damaged") from error
    if not schema_of(metadata).equals(schema, check_metadata=True):
        raise DamagedError("its columns are not those that its description names")
    return metadata


def _parsed(schema: pa.Schema, text: bytes) -> Metadata:
    """Parse the description; the caller checks it by building the schema again from it."""
    facts = json.loads(text)
    check_format("no readable store", facts["format"], FORMAT)
    quantities: dict[str, dict[str, Quantity]] = {"lines": {}, "samples": {}, "property": {}, "forces": {}}
    for column in schema:
        about = column.metadata or {}
        kind = about.get(b"kind", b"").decode()
        if kind in quantities:
            name = column.name.removesuffix("_position") if kind == "lines" else column.name
            quantities[kind][name] = Quantity(about[b"unit"].decode(), about[b"level"].decode())
    samples = [schema.field(name).type.value_type for name in quantities["samples"]]
    return Metadata(
        source=str(facts["source"]),
        licence=str(facts["licence"]),
        level=str(facts["level"]),
        lines={name: quantity.level for name, quantity in quantities["lines"].items()},
        samples={name: quantity.level for name, quantity in quantities["samples"].items()},
        properties=quantities["property"],
        forces=quantities["forces"].get("forces"),
        position_dtype=_dtype_name(schema.field("positions").type.value_type.value_type),
        sample_dtype=_dtype_name(samples[0]) if samples else "float32",
        notes={str(key): str(value) for key, value in facts["notes"].items()},
    )


def _fixed_fields(metadata: Metadata) -> list[pa.Field]:
    """Return all columns except the properties, whose names the metadata choose."""
    fields = [
        pa.field("identity", pa.large_string(), nullable=False),
        pa.field("smiles", pa.large_string()),
        pa.field("name", pa.large_string()),
        pa.field("charge", pa.int32(), nullable=False),
        pa.field("geometry_id", pa.int64(), nullable=False),
        pa.field("numbers", ragged(pa.uint8()), nullable=False),
        pa.field(
            "positions",
            ragged(vector(_DTYPES[metadata.position_dtype])),
            nullable=False,
            metadata=_described("positions", Quantity("Å", metadata.level)),
        ),
    ]
    if metadata.forces:
        about = _described("forces", metadata.forces)
        fields.append(pa.field("forces", ragged(vector(pa.float32())), metadata=about))
    for name in metadata.modalities:
        kind = MODALITIES[name]
        if name in metadata.lines:
            level = metadata.lines[name]
            position = _described("lines", Quantity(kind.unit, level))
            intensity = _described("intensity", Quantity(kind.line_unit, level))
            fields.append(pa.field(f"{name}_position", ragged(pa.float32()), metadata=position))
            fields.append(pa.field(f"{name}_intensity", ragged(pa.float32()), metadata=intensity))
        else:
            about = _described("samples", Quantity(kind.intensity_unit, metadata.samples[name]))
            fields.append(pa.field(name, ragged(_DTYPES[metadata.sample_dtype]), metadata=about))
    return fields


def ragged(value: pa.DataType) -> pa.DataType:
    """Return the Arrow type of a list of any length without missing values."""
    return pa.large_list(pa.field("item", value, nullable=False))


def vector(component: pa.DataType, width: int = 3) -> pa.DataType:
    """Return the Arrow type of a vector with `width` components."""
    return pa.list_(pa.field("item", component, nullable=False), width)


def _described(kind: str, quantity: Quantity) -> dict[str, str]:
    return {"kind": kind, "unit": quantity.unit, "level": quantity.level}


def _dtype_name(dtype: pa.DataType) -> str:
    return next((name for name, arrow in _DTYPES.items() if arrow == dtype), str(dtype))
