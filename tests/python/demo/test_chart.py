"""The demo's chart: a PNG that grows with the contestants, with or without figures."""

import struct
from pathlib import Path

import pytest
from plait.cli.chart import write_chart
from plait.cli.contest import Outcome
from plait.cli.contestant import CONTESTANTS


def outcomes(count: int) -> list[Outcome]:
    """Outcomes of the first contestants, of which the last is refused."""
    names = list(CONTESTANTS)[:count]
    some = [
        Outcome(name, "ok", python="CPython 3.14.0", seconds=10 / n, peak_bytes=n * 10**8)
        for n, name in enumerate(names, 1)
    ]
    if count > 1:
        some[-1].status = "refused"
        some[-1].seconds = some[-1].peak_bytes = 0
    return some


@pytest.mark.parametrize("count", [1, 3, 6])
def test_it_is_a_png_of_sensible_size(tmp_path, count):
    path = Path(tmp_path, "chart")  # the name does not choose the format
    write_chart(path, outcomes(count), "12 files", 2)
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert 1200 <= width <= 2400
    assert 280 + 50 * count <= height <= 400 + 100 * count
    assert 5_000 < len(data) < 500_000


def test_a_folder_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        write_chart(tmp_path / "nowhere" / "chart.png", outcomes(2), "12 files", 2)
