"""The outcomes of a job as Parquet, with types. Needs the extra ``parquet``."""

from collections.abc import Iterable
from pathlib import Path

from db.worklist import OutcomeRow
from worker.errors import OutputError
from worker.output.rows import COLUMNS, RANK, CountedRows, Written

#: Rows in memory together.
_ROWS = 16_384
_NUMBERS = ("probability", "raw_probability", "malignant_probability", "threshold")


def write_parquet(rows: Iterable[OutcomeRow], file: Path, *, ranked: bool = False, cancelled: bool = False) -> Written:
    """Write outcomes as Parquet: numbers as doubles, ``reused`` as a boolean, all else as text.

    Args:
        rows: in the order to write.
        file: to write.
        ranked: whether ``rank`` counts the scored images from 1.
        cancelled: whether the job was cancelled, so that a human must look at waiting images.

    Raises:
        OutputError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError:
        raise OutputError("For Parquet install pyarrow: pip install 'dermq[parquet]'.") from None
    types = {name: pa.float64() if name in _NUMBERS else pa.string() for name in COLUMNS} | {"reused": pa.bool_()}
    if ranked:
        types = {RANK: pa.int64(), **types}
    schema = pa.schema(types)
    counted = CountedRows(rows, cancelled=cancelled)
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        columns: dict[str, list[object]] = {name: [] for name in types}
        for rank, row, cells in counted:
            for name, cell in zip(COLUMNS, cells, strict=True):
                columns[name].append(row.reused if name == "reused" else cell)
            if ranked:
                columns[RANK].append(rank)
            if len(columns["path"]) == _ROWS:
                writer.write_table(pa.table(columns, schema=schema))
                columns = {name: [] for name in types}
        writer.write_table(pa.table(columns, schema=schema))
    return counted.written()
