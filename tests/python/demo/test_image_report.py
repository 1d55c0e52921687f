"""The demo's report on images: what is found in images of which one knows what is in them."""

import struct
import zlib

import pytest

np = pytest.importorskip("numpy")
from plait.cli import image_report as report  # noqa: E402


def test_an_image_of_one_brightness():
    found = report.analyse_image(np.full((64, 64), 100, np.uint8))
    assert found["edges"].max() == 0
    assert abs(found["blurred"].astype(int) - 100).max() <= 1
    assert found["histogram"] == [0] * 100 + [64 * 64] + [0] * 155
    assert found["mean"] == found["median"] == [[100.0] * 2] * 2
    assert found["deviation"] == [[0.0] * 2] * 2


def test_an_edge_is_found_where_it_is():
    image = np.zeros((64, 64), np.uint8)
    image[:, 40:] = 200
    found = report.analyse_image(image)
    assert set(found["edges"].argmax(1)) <= {39, 40}
    assert found["edges"][:, :30].max() == 0
    row = found["blurred"][30].astype(int)
    assert (np.diff(row) >= 0).all()
    assert 0 < row[39] < row[40] < 200
    assert found["deviation"][0][0] == 0.0 < found["deviation"][0][1]


def test_the_blur_is_the_same_down_and_across():
    image = report.make_image(5)[:128, :128]
    across = report.analyse_image(image.T.copy())["blurred"].T.astype(int)
    down = report.analyse_image(image)["blurred"].astype(int)
    assert abs(across - down).max() <= 1


def test_images_depend_on_their_number_alone():
    assert (report.make_image(3) == report.make_image(3)).all()
    assert (report.make_image(3) != report.make_image(4)).any()


def test_the_summary():
    dark, lively = np.full((64, 64), 10, np.uint8), np.full((64, 64), 50, np.uint8)
    lively[::2] = 90
    found = report.summarise([report.analyse_image(image) for image in (lively, dark)])
    assert (found["images"], found["pixels"]) == (2, 2 * 64 * 64)
    assert found["brightness"] == 40.0
    assert (found["darkest"], found["liveliest"]) == (1, 0)


def test_a_png_holds_the_image():
    image = np.arange(15, dtype=np.uint8).reshape(3, 5)
    data = report.encode_png(image)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", data[16:24]) == (5, 3)
    (length,) = struct.unpack(">I", data[33:37])
    lines = zlib.decompress(data[41 : 41 + length])
    assert lines == b"".join(b"\0" + row.tobytes() for row in image)
