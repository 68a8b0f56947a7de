"""Read thousands of damaged score files, manifests and tables; none may crash, hang or be quoted.

Each must end in reports or studies or in a coded error of one line, which shows no text of a report
and no name.

    python benchmarks/fuzz/tables.py [--count 10000] [--seed 0]

Seeds are small files made here: score files as CSV (commas, semicolons, tabs, UTF-16), JSONL, JSON
in six shapes and plain lines; manifests; and a lab's CSV. Damage: flipped bits, cuts, doubled,
removed or moved blocks, bytes that mean something (quotes, brackets, separators, line ends, marks
of encodings, halves of characters, NaN, huge numbers, deep nesting), and the head of one file
before the tail of another.
"""

from __future__ import annotations

import argparse
import json
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import numpy as np
from tqdm import tqdm

from lmrrg.config.data import DataConfig
from lmrrg.data.sources import import_studies
from lmrrg.errors import CodedError
from lmrrg.manifest import read_studies
from lmrrg.metrics.report_files import pair_reports, read_pairs, read_reports

LONGEST_S = 5
"""Seconds after which a file counts as a hang."""
_WINDOW = 14
"""Characters of a report or a name in a row that count as a quote: more than a word of them."""

# No word of ours occurs in a message or in the name of a column.
TEXTS = (
    "Zwibbelquax mirthfold, plonketty; sneezwort.",
    'Grumblefish "yaffled" hornswoggle.\nVexillary jumbuck.',
    "Quobnight thrumwhistle: krakenfjord; snollygoster wampeter.",
)
NAMES = ("Xanthippe^Quillfeather", "Bartholomew^Yggdrasil")
_TOKENS = (
    b'"',
    b"'",
    b",",
    b";",
    b"\t",
    b"\n",
    b"\r",
    b"\r\n",
    b"\0",
    b"{",
    b"}",
    b"[",
    b"]",
    b":",
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"NaN",
    b"null",
    b"true",
    b"-1",
    b"1e999",
    b"1" * 5000,
    b"[" * 3000,
    b'{"a":' * 3000,
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\xfe\xff",
    b"\xff",
    b"\xed\xa0\x80",
    b"\x85",
    b"\xe2\x80\xa8",
    b"sep=;\n",
    b"study_id,report\n",
    b"report,",
)

Files = dict[str, bytes]
"""The content of each seed by its name, whose suffix says how it is read."""


def main() -> None:
    """Print the outcomes of each kind and the slowest file; fail at a crash, a hang or a quote."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10_000, help="damaged files of each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    signal.signal(signal.SIGALRM, _hang)
    with tempfile.TemporaryDirectory() as folder:
        for kind, (make, read) in KINDS.items():
            rng = np.random.default_rng(arguments.seed)
            ends: Counter[str] = Counter()
            slowest = 0.0
            for _ in tqdm(range(arguments.count), desc=kind, unit="file", mininterval=2):
                path = damaged_file(make(), Path(folder), rng)
                # Not by the clock: a busy disk would look like a slow reader.
                started = time.process_time()
                ends[outcome(read, path)] += 1
                slowest = max(slowest, time.process_time() - started)
            print(f"{kind}: slowest file {slowest:.2f} s of one core")
            for code, count in ends.most_common():
                print(f"{count:7d}  {code}")


def outcome(read: Callable[[Path], object], path: Path) -> str:
    """Return "read" or the code of the refusal.

    Raises:
        AssertionError: the message has several lines, or quotes a report or a name.
    """
    signal.alarm(LONGEST_S)
    try:
        read(path)
    except CodedError as error:
        message = str(error).replace(str(path), "FILE")
        assert "\n" not in message, message
        assert not quotes(message), message
        return error.code
    finally:
        signal.alarm(0)
    return "read"


def quotes(message: str) -> bool:
    """Return whether a message holds some characters in a row of a report or a name."""
    plain = message.lower()
    return any(window in plain for window in _WINDOWS)


def damaged_file(seeds: Files, folder: Path, rng: np.random.Generator) -> Path:
    """Write one of the seeds, damaged, and return its path."""
    names = sorted(seeds)
    name = names[rng.integers(len(names))]
    data = seeds[name]
    if rng.random() < 0.1:
        other = seeds[names[rng.integers(len(names))]]
        data = data[: rng.integers(len(data))] + other[rng.integers(len(other)) :]
    for _ in range(rng.integers(1, 3)):
        data = _DAMAGES[rng.integers(len(_DAMAGES))](data, rng)
    path = folder / f"damaged{Path(name).suffix}"
    path.write_bytes(data)
    return path


def score_files() -> Files:
    """Return files of reports in every form that is read."""
    ids = ("70000001", "70000002", "s3")
    rows = [{"study_id": study, "report": text} for study, text in zip(ids, TEXTS, strict=True)]
    both = [{**row, "reference": TEXTS[0], "name": NAMES[0]} for row in rows]
    by_id = dict(zip(ids, TEXTS, strict=True))
    columns = {"study_id": list(ids), "report": list(TEXTS)}
    nested = {study: {"report": text, "split": "test"} for study, text in by_id.items()}
    lines = "\n".join(text.replace("\n", " ") for text in TEXTS)
    return {
        "a.csv": _table(",", rows).encode(),
        "b.csv": _table(";", both).encode(),
        "c.csv": _table(",", rows).encode("utf-16"),
        "a.tsv": _table("\t", both).encode(),
        "a.jsonl": "\n".join(map(json.dumps, both)).encode(),
        "a.json": json.dumps(rows).encode(),
        "b.json": json.dumps(by_id).encode(),
        "c.json": json.dumps(columns).encode(),
        "d.json": json.dumps(nested).encode(),
        "e.json": json.dumps({"train": rows[:1], "test": rows[1:]}).encode(),
        "f.json": json.dumps({"references": list(TEXTS), "hypotheses": list(TEXTS)}).encode(),
        "a.txt": lines.encode(),
    }


def manifests() -> Files:
    """Return manifests of three studies."""
    studies = [
        {
            "id": f"s{number}",
            "patient": NAMES[number % 2],
            "images": [{"path": f"films/{number}.png", "view": "PA"}],
            "findings": text,
            "impression": text,
            "labels": {"Edema": 1, "Pneumonia": -1},
            "split": "train",
            "prior": "s0" if number == 2 else None,
        }
        for number, text in enumerate(TEXTS)
    ]
    return {"a.jsonl": "\n".join(map(json.dumps, studies)).encode()}


def lab_tables() -> Files:
    """Return a lab's CSV in two dialects."""
    rows = [
        {
            "study_id": f"A{number}",
            "patient_id": NAMES[number % 2],
            "image": "a.png;b.png",
            "view": "PA;LL",
            "date": "2021-03-04",
            "report": f"FINDINGS: {text}",
            "Edema": "1",
        }
        for number, text in enumerate(TEXTS)
    ]
    return {"a.csv": _table(",", rows).encode(), "b.csv": _table("\t", rows).encode("utf-16")}


def read_score_file(path: Path) -> None:
    """Read a file as references, as reports and as both, and match it with another."""
    good = path.with_name("good.csv")
    good.write_text("study_id,report\n70000001,Clear.\n70000002,Clear.\ns3,Clear.\n")
    outcomes = {
        outcome(lambda _: pair_reports(read_reports(good), read_reports(path, "hypotheses")), path),
        outcome(lambda _: pair_reports(read_reports(path), read_reports(good, "hypotheses")), path),
        outcome(read_pairs, path),
    }
    for code in sorted(outcomes - {"read", "one_side"}):
        raise CodedError(code, "refused")


def read_lab_table(path: Path) -> None:
    """Import a lab's CSV; its image files are there."""
    for name in ("a.png", "b.png"):
        path.with_name(name).touch()
    settings = DataConfig(source="csv", path=path, ids="published")
    import_studies(settings, path.parent, 7, progress=False)


KINDS: dict[str, tuple[Callable[[], Files], Callable[[Path], object]]] = {
    "score files": (score_files, read_score_file),
    "manifests": (manifests, read_studies),
    "lab tables": (lab_tables, read_lab_table),
}


def _windows(text: str, size: int) -> set[str]:
    return {text[at : at + size].lower() for at in range(len(text) - size + 1)}


_WINDOWS = set().union(*(_windows(text, _WINDOW) for text in (*TEXTS, *NAMES)))


def _table(delimiter: str, rows: list[dict[str, str]]) -> str:
    quoted = (['"' + cell.replace('"', '""') + '"' for cell in row.values()] for row in rows)
    return "\n".join(map(delimiter.join, [rows[0], *quoted])) + "\n"


def _hang(number: int, frame: FrameType | None) -> None:
    raise AssertionError(f"a file takes more than {LONGEST_S} s")


def _flip(data: bytes, rng: np.random.Generator) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.integers(1, 9)):
        if changed:
            changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
    return bytes(changed)


def _cut(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data) + 1))
    return data[:at] if rng.random() < 0.5 else data[at:]


def _move(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data) + 1))
    end = at + int(rng.integers(1, 120))
    block = data[at:end]
    kind = rng.integers(3)
    if kind == 0:
        return data[:at] + data[end:]
    if kind == 1:
        return data[:at] + block * 2 + data[end:]
    rest = data[:at] + data[end:]
    to = int(rng.integers(len(rest) + 1))
    return rest[:to] + block + rest[to:]


def _insert(data: bytes, rng: np.random.Generator) -> bytes:
    at = int(rng.integers(len(data) + 1))
    token = _TOKENS[rng.integers(len(_TOKENS))]
    skipped = len(token) if rng.random() < 0.5 else 0
    return data[:at] + token + data[at + skipped :]


def _replace(data: bytes, rng: np.random.Generator) -> bytes:
    """Replace every occurrence of one byte by a token."""
    if not data:
        return data
    token = _TOKENS[rng.integers(len(_TOKENS))]
    byte = data[rng.integers(len(data))]
    # Long tokens many times would only be slow to write.
    return data.replace(bytes([byte]), token if len(token) < 10 else b"")


_DAMAGES = (_flip, _cut, _move, _insert, _insert, _replace)

if __name__ == "__main__":
    main()
