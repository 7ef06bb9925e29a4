"""Preparing the same images from parquet files and from a tar: the ratio of the times, and memory.

    python benchmarks/prepare_parquet.py --images=TAR [--count=100000] [--turns=2] [--folder=FOLDER]

Takes the first `count` files of TAR (compressed or not), writes them into a plain tar and into ten parquet files with
groups of 100 rows, as Hugging Face's libraries do, in a temporary folder (in FOLDER). Then it prepares both in turns at
64x64, each time in a new process whose memory is measured. The result must be the same to the byte.
"""

import os
import shutil
import statistics
import tarfile
import tempfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import measure
import pyarrow as pa
import pyarrow.parquet as pq
from prepare import hashes, prepare

NUM_FILES, GROUP = 10, 100


def contents(archive: Path, count: int) -> Iterator[tuple[str, bytes]]:
    """The first files of a tar, with their names."""
    with tarfile.open(archive) as opened:
        files = (member for member in opened if member.isfile())
        for member, _ in zip(files, range(count), strict=False):
            yield member.name, opened.extractfile(member).read()


def write_both(archive: Path, tar: Path, tables: Path, count: int) -> None:
    """Writes the files of a tar into another one, and into parquet files."""
    tables.mkdir()
    schema = pa.schema([("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())]))])
    rows: list[dict] = []
    files = (pq.ParquetWriter(tables / f"train-{i:05d}-of-{NUM_FILES:05d}.parquet", schema) for i in range(NUM_FILES))
    with tarfile.open(tar, "w") as written:
        for i, (name, content) in enumerate(contents(archive, count)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            written.addfile(member, BytesIO(content))
            rows.append({"bytes": content, "path": name})
            if len(rows) == -(-count // NUM_FILES) or i == count - 1:
                with next(files) as file:
                    file.write_table(pa.table({"image": rows}, schema), row_group_size=GROUP)
                rows.clear()


def main() -> None:
    parser = measure.plain_parser(__doc__, count=100_000, turns=2)
    parser.add_argument("--images", type=Path, required=True, help="a tar of images")
    parser.add_argument("--folder", type=Path, help="where to work; a temporary folder by default")
    options = parser.parse_args()
    workers = os.cpu_count() or 1
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        sources = {"parquet": Path(name) / "tables", "tar": Path(name) / "images.tar"}
        write_both(options.images, sources["tar"], sources["parquet"], options.count)
        times: dict[str, list[float]] = {kind: [] for kind in sources}
        made = {}
        for _ in range(options.turns):
            for kind, source in sources.items():
                target = Path(name) / "prepared"
                seconds, memory = prepare(source, target, workers)
                times[kind].append(seconds)
                made[kind] = hashes(target)["images.npy"]
                shutil.rmtree(target)
                rate = options.count / seconds
                print(f"{kind}: {seconds:.1f} s, {rate:.0f} images/s, {memory:.0f} MB at most", flush=True)
        ratio = statistics.median(times["parquet"]) / statistics.median(times["tar"])
        print(f"parquet takes {ratio:.2f} times as long as tar; the same images: {made['parquet'] == made['tar']}")


if __name__ == "__main__":
    main()
