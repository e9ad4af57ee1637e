"""A store that is cut, flipped or forged gives one line, never another exception or a wrong value."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from molspectra.data.store.schema import HASH_KEY, schema_of
from molspectra.data.store.store import Metadata, Store, write_store
from molspectra.errors import DamagedError, FormatError, InputError, NewerFormatError, NotFoundError


@pytest.fixture(scope="module")
def good(tmp_path_factory, make_row, metadata):
    from dataclasses import replace

    small = replace(
        metadata, samples={}, lines={"ir": "harmonic"}
    )  # little data, so that most flips hit structure
    rows = [make_row(i) for i in range(5)]
    rows = [replace(row, spectra={k: v for k, v in row.spectra.items() if k == "ir"}) for row in rows]
    path = tmp_path_factory.mktemp("damage") / "good.arrow"
    write_store(path, rows, small, chunk_rows=3)
    return path.read_bytes()


def read_everything(path):
    """Use every way into a store, and return what it holds."""
    store = Store(path)
    found = [store.identities, store.atom_counts.tolist(), store.hash]
    batch = store.batch(
        range(len(store)), modalities=store.metadata.modalities, targets=store.metadata.targets
    )
    found += [batch.numbers.tolist(), batch.positions.tolist(), str(batch.targets), str(batch.spectra)]
    for i in range(len(store)):
        row = store.row(i)
        found += [repr(row.molecule), row.identity, row.properties, str(row.forces)]
    store.verify()
    return found


def outcome(path, data):
    """Read damaged bytes: the message of the InputError, or what was read."""
    path.write_bytes(data)
    try:
        return read_everything(path)
    except InputError as error:
        message = str(error)
        assert "\n" not in message
        assert message.startswith(str(path))
        return message


def test_cut_anywhere(tmp_path, good):
    path = tmp_path / "cut.arrow"
    cuts = [0, 1, 5, 6, 7, 8, 9, 16, *range(20, len(good), 149), *range(len(good) - 12, len(good))]
    messages = {outcome(path, good[:cut]).split(": ", 2)[2] for cut in cuts}
    assert all("make the store again" in message for message in messages)


def test_flipped_bits(tmp_path, good):
    path, rng = tmp_path / "flipped.arrow", np.random.default_rng(0)
    intact = outcome(path, good)
    seen = Counter()
    for _ in range(150):
        data = bytearray(good)
        for _ in range(rng.integers(1, 4)):
            data[rng.integers(len(data))] ^= 1 << rng.integers(8)
        result = outcome(path, bytes(data))
        # What goes unnoticed lies in padding: everything that can be read is as it was.
        assert isinstance(result, str) or result == intact
        seen[type(result)] += 1
    assert seen[str] > 110


def test_forged_numbers_in_the_structure(tmp_path, good):
    path, rng = tmp_path / "forged.arrow", np.random.default_rng(1)
    intact = outcome(path, good)
    values = np.array([0, 1, 8, 1000, 2**31, 2**40, 2**62, 2**63, 2**64 - 1, len(good)], np.uint64)
    for _ in range(100):
        data = bytearray(good)
        for _ in range(rng.integers(1, 3)):
            place = 8 * int(rng.integers(len(data) // 8 - 1))
            data[place : place + 8] = rng.choice(values).tobytes()
        result = outcome(path, bytes(data))
        assert isinstance(result, str) or result == intact


def rewrite(path, schema, batches, options=None):
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema, options=options) as writer:
        for batch, metadata in batches:
            writer.write_batch(batch, custom_metadata=metadata)


@pytest.fixture
def parts(tmp_path, good):
    path = tmp_path / "good.arrow"
    path.write_bytes(good)
    reader = pa.ipc.open_file(path)
    return reader.schema, [reader.get_batch_with_custom_metadata(i) for i in range(reader.num_record_batches)]


def with_column(batch, name, array):
    index = batch.schema.names.index(name)
    columns = [array if i == index else column for i, column in enumerate(batch.columns)]
    return pa.record_batch(columns, schema=batch.schema)


def refused(path, match, kind=DamagedError):
    with pytest.raises(kind, match=match) as raised:
        read_everything(path)
    assert "\n" not in str(raised.value)


def test_compressed_files_are_refused(tmp_path, parts):
    rewrite(tmp_path / "a.arrow", *parts, options=pa.ipc.IpcWriteOptions(compression="zstd"))
    refused(tmp_path / "a.arrow", "compressed")


def test_lists_that_do_not_belong_together(tmp_path, parts):
    schema, ((batch, about), *rest) = parts
    numbers = batch.column("numbers").to_pylist()
    numbers[1] = numbers[1][:-1]
    forged = with_column(batch, "numbers", pa.array(numbers, schema.field("numbers").type))
    rewrite(tmp_path / "a.arrow", schema, [(forged, about), *rest])
    refused(tmp_path / "a.arrow", "not one position for each")
    lines = batch.column("ir_intensity").to_pylist()
    lines = [line and line[:-1] for line in lines]
    forged = with_column(batch, "ir_intensity", pa.array(lines, schema.field("ir_intensity").type))
    rewrite(tmp_path / "b.arrow", schema, [(forged, about), *rest])
    refused(tmp_path / "b.arrow", "no intensity or no position")
    forces = [force and [*force, [0.0, 0.0, 0.0]] for force in batch.column("forces").to_pylist()]
    forged = with_column(batch, "forces", pa.array(forces, schema.field("forces").type))
    rewrite(tmp_path / "c.arrow", schema, [(forged, about), *rest])
    refused(tmp_path / "c.arrow", "wrong length")


def test_values_that_no_writer_writes(tmp_path, parts):
    schema, ((batch, about), *rest) = parts
    numbers = batch.column("numbers").to_pylist()
    numbers[2][0] = 119
    forged = with_column(batch, "numbers", pa.array(numbers, schema.field("numbers").type))
    rewrite(tmp_path / "a.arrow", schema, [(forged, about), *rest])
    refused(tmp_path / "a.arrow", "row 2.*an atom is damaged")


def test_a_text_that_is_not_utf8(tmp_path, good):
    path = tmp_path / "a.arrow"
    path.write_bytes(good.replace(b"ID000001", b"ID\xff00001"))
    store = Store(path)
    for read in (lambda: store.identities, lambda: store.row(1)):
        with pytest.raises(DamagedError, match="UTF-8"):
            read()


def test_a_changed_value_is_found_with_its_rows(tmp_path, parts):
    schema, (first, (batch, about)) = parts
    gap = pa.array([1.5 for _ in range(batch.num_rows)], pa.float64())
    rewrite(tmp_path / "a.arrow", schema, [first, (with_column(batch, "gap", gap), about)])
    store = Store(tmp_path / "a.arrow")
    with pytest.raises(DamagedError, match="rows 3 to 4"):
        store.verify()


def test_lost_hash_and_lost_rows(tmp_path, parts):
    schema, (first, second) = parts
    rewrite(tmp_path / "a.arrow", schema, [(first[0], None)])
    with pytest.raises(DamagedError, match="rows 0 to 2"):
        Store(tmp_path / "a.arrow").verify()
    rewrite(tmp_path / "b.arrow", schema, [second])
    with pytest.raises(DamagedError, match="rows 0 to 1"):
        Store(tmp_path / "b.arrow").verify()


def test_empty_record_batches(tmp_path, parts):
    schema, _ = parts
    rewrite(tmp_path / "a.arrow", schema, [])
    refused(tmp_path / "a.arrow", "no rows")
    rewrite(tmp_path / "b.arrow", schema, [(schema.empty_table().to_batches(), None)][:0])
    refused(tmp_path / "b.arrow", "no rows")


def test_files_of_other_kinds(tmp_path):
    refused(tmp_path / "missing.arrow", "no such file", NotFoundError)
    refused(tmp_path, "no such file", NotFoundError)
    (tmp_path / "text.arrow").write_text("SMILES,gap\nC,1\n" * 10)
    refused(tmp_path / "text.arrow", "not an Arrow file", FormatError)
    (tmp_path / "raw.npz").write_bytes(b"PK")
    refused(tmp_path / "raw.npz", "molspectra prepare", FormatError)
    table = pa.table({"gap": [1.0]})
    rewrite(tmp_path / "other.arrow", table.schema, [(table.to_batches()[0], None)])
    refused(tmp_path / "other.arrow", "not a molspectra store", FormatError)


@pytest.mark.parametrize(
    ("text", "match", "kind"),
    [
        (b'{"format": 2}', "format 2 is newer", NewerFormatError),
        (b'{"format": "1"}', "format", FormatError),
        (b"[]", "damaged", DamagedError),
        (b"[" * 100_000, "damaged", DamagedError),
        (b"\xff", "damaged", DamagedError),
        (b" " * (2 << 20), "not a molspectra store", FormatError),
    ],
)
def test_forged_descriptions(tmp_path, parts, text, match, kind):
    schema, batches = parts
    forged = schema.with_metadata({b"molspectra": text})
    rewrite(
        tmp_path / "a.arrow", forged, [(pa.record_batch(b.columns, schema=forged), m) for b, m in batches]
    )
    refused(tmp_path / "a.arrow", match, kind)


def test_columns_of_another_type(tmp_path, parts):
    schema, ((batch, about), *_) = parts
    index = schema.get_field_index("gap")
    forged = schema.set(index, schema.field("gap").with_type(pa.float32()))
    columns = [c.cast(pa.float32()) if i == index else c for i, c in enumerate(batch.columns)]
    rewrite(tmp_path / "a.arrow", forged, [(pa.record_batch(columns, schema=forged), about)])
    refused(tmp_path / "a.arrow", "columns are not those")


def test_metadata_of_a_store_is_read_back(metadata):
    from molspectra.data.store.schema import metadata_of

    for each in (metadata, Metadata("", "")):
        assert metadata_of(schema_of(each)) == each
    assert HASH_KEY == b"sha256"
