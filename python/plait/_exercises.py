"""What well-known packages are made to do before they are trusted, in workers and in the tests.

Importing a package proves little: each function here uses what is compiled in it, natively threaded
parts among it, and returns plain values that are the same every time and everywhere.
"""

from collections.abc import Callable
from typing import Any, Final


def _numpy() -> object:
    import numpy as np

    generator = np.random.default_rng(7)
    square = generator.random((60, 60))
    return [
        round(float(np.linalg.svd(square)[1].max()), 6),
        round(float(np.abs(np.fft.rfft(square.ravel())).sum()), 6),
        int(np.sort(generator.integers(0, 1000, 500))[250]),
        str(np.array([1, 2], dtype=object) + 1),
    ]


def _scipy() -> object:
    import numpy as np
    from scipy import linalg, optimize, sparse, special, stats

    matrix = sparse.csr_matrix(np.diag(np.arange(1.0, 20.0)))
    return [
        round(float(optimize.brentq(lambda x: x * x - 2, 0, 2)), 6),
        round(float(linalg.det(np.eye(5) * 2)), 6),
        round(float((matrix @ matrix).trace()), 6),
        round(float(special.gamma(4.5)), 6),
        round(float(stats.norm.cdf(1.0)), 6),
    ]


def _pandas() -> object:
    import numpy as np
    import pandas as pd

    frame = pd.DataFrame({"key": np.arange(1000) % 7, "value": np.arange(1000.0)})
    frame["when"] = pd.date_range("2024-01-01", periods=1000, freq="h")
    grouped = frame.groupby("key")["value"].mean().round(6).tolist()
    resampled = frame.set_index("when")["value"].resample("D").sum().head(3).tolist()
    return grouped, resampled, frame.merge(frame, on="key").shape


def _sklearn() -> object:
    from sklearn.cluster import KMeans
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression

    data, target = make_classification(200, random_state=0)
    forest = RandomForestClassifier(10, random_state=0).fit(data, target)
    clusters = KMeans(3, n_init=1, random_state=0).fit_predict(data)
    line = LogisticRegression().fit(data, target)
    return float(line.score(data, target)), float(forest.score(data, target)), len(set(clusters))


def _pillow() -> object:
    import hashlib
    import io

    from PIL import Image, ImageDraw, ImageFilter

    image = Image.new("RGB", (64, 64), (10, 20, 30))
    ImageDraw.Draw(image).ellipse((8, 8, 50, 50), fill=(200, 100, 50))
    blurred = image.filter(ImageFilter.GaussianBlur(2)).resize((32, 32))
    stream = io.BytesIO()
    blurred.save(stream, "PNG")
    again = Image.open(io.BytesIO(stream.getvalue()))
    return hashlib.sha256(again.tobytes()).hexdigest()


def _lxml() -> object:
    from lxml import etree

    tree = etree.fromstring("<a>" + "<b x='1'>text</b>" * 50 + "</a>")
    style = etree.XSLT(
        etree.fromstring(
            '<s:stylesheet version="1.0" xmlns:s="http://www.w3.org/1999/XSL/Transform">'
            '<s:template match="/"><n><s:value-of select="count(//b)"/></n></s:template>'
            "</s:stylesheet>"
        )
    )
    return len(tree.xpath("//b[@x='1']")), str(style(tree)), len(etree.tostring(tree))


def _pydantic() -> object:
    from pydantic import BaseModel, ValidationError, create_model

    model: type[BaseModel] = create_model("Model", number=(int, ...), names=(list[str], []))
    try:
        model.model_validate({"number": "no"})
    except ValidationError as error:
        count = error.error_count()
    return model.model_validate({"number": "5", "names": ["a"]}).model_dump_json(), count


def _orjson() -> object:
    import orjson

    return orjson.dumps(orjson.loads(b'{"a": [1, 2.5, null, "\xc3\xa9"]}')).decode()


def _yaml() -> object:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return yaml.load("a: [1, 2.5, {b: null}]\nc: text", Loader=loader)


def _cryptography() -> object:
    import base64

    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    box = Fernet(base64.urlsafe_b64encode(bytes(32)))
    key = ec.generate_private_key(ec.SECP256R1())
    signature = key.sign(b"text", ec.ECDSA(hashes.SHA256()))
    key.public_key().verify(signature, b"text", ec.ECDSA(hashes.SHA256()))
    return box.decrypt(box.encrypt(b"text")).decode()


def _matplotlib() -> object:
    import hashlib

    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure((3, 2), dpi=50)
    axes = figure.add_subplot()
    axes.plot(range(10), [value**2 for value in range(10)])
    axes.set_title("Title")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return hashlib.sha256(bytes(canvas.buffer_rgba())).hexdigest()


def _pyarrow(use_threads: bool = True) -> object:
    import io

    import pyarrow as pa
    from pyarrow import compute, csv, parquet

    lines = b"a,b\n" + b"1,x\n" * 50_000
    options = csv.ReadOptions(use_threads=use_threads, block_size=20_000)
    table = csv.read_csv(io.BytesIO(lines), options)
    stream = io.BytesIO()
    parquet.write_table(table, stream)
    back = parquet.read_table(io.BytesIO(stream.getvalue()), use_threads=use_threads)
    return compute.sum(back["a"]).as_py(), pa.table({"n": [1, 2]}).num_rows


def _polars() -> object:
    import io

    import polars as pl

    frame = pl.read_csv(io.BytesIO(b"a,b\n" + b"1,x\n2,y\n" * 20_000))
    doubled = pl.col("a").map_batches(lambda values: values * 2, return_dtype=pl.Int64)
    sums = pl.collect_all([frame.lazy().select(doubled.sum()) for _ in range(8)])
    grouped = frame.group_by("b").agg(pl.col("a").sum()).sort("b")
    return grouped.rows(), [one.item() for one in sums]


EXERCISES: Final[dict[str, Callable[[], Any]]] = {
    "numpy": _numpy,
    "scipy": _scipy,
    "pandas": _pandas,
    "sklearn": _sklearn,
    "matplotlib": _matplotlib,
    "PIL": _pillow,
    "lxml": _lxml,
    "pydantic": _pydantic,
    "pydantic_core": _pydantic,
    "orjson": _orjson,
    "yaml": _yaml,
    "_yaml": _yaml,
    "cryptography": _cryptography,
    "pyarrow": _pyarrow,
    "polars": _polars,
}
