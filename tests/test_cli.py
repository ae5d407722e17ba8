"""`python -m explorer`: what it prints, and what it says to bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from explorer.cli import values
from explorer.cli.main import main
from explorer.engine import (
    ConstantStart,
    GaussianStart,
    MaxActivation,
    MinSquaredError,
    Percentile,
    SpecError,
    TrainedClip,
    UniformStart,
)
from explorer.engine.methods import texts
from explorer.zoo.data import ASSETS
from tests.pictures import class_folders, picture

ROOT = Path(__file__).resolve().parent.parent
OWN = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(4), nn.Conv2d(8, 8, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(32, 2),
    )

def gated():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.SiLU(), nn.Flatten(), nn.Linear(1152, 2))
"""


@pytest.fixture
def own(tmp_path) -> list[str]:
    """The options of a network in a Python file, on pictures of two classes."""
    (tmp_path / "own.py").write_text(OWN)
    folders = class_folders(tmp_path / "pets", {"cat": 8, "dog": 8})
    return [
        "--network", f"{tmp_path}/own.py:make", "--input-size", "16", "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5",
        "--classes", "cat,dog", "--data", str(folders), "--threads", "2",
    ]  # fmt: skip


def run_json(capsys, *options: str) -> dict:
    """Run a command and return the one JSON value it prints."""
    assert main([*options, "--json"]) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def test_run_prints_one_object(capsys, own):
    result = run_json(capsys, "run", *own, "--images", "10", "--steps", "6", "--threshold", "max")
    assert set(result) == {"ann_top1", "top1", "images", "spikes_per_neuron", "seconds", "settings"}
    assert len(result["top1"]) == 6
    assert all(0 <= share <= 1 for share in [*result["top1"], result["ann_top1"]])
    assert result["images"] == 10
    assert 0 < result["spikes_per_neuron"] <= 6
    assert result["seconds"] > 0
    assert result["settings"]["threshold"] == {"rule": "MaxActivation", "per": "site"}


def test_run_is_the_same_when_run_again(capsys, own):
    options = ("run", *own, "--images", "10", "--steps", "5", "--v-init", "uniform:0:1", "--seed", "3")
    first, second = (run_json(capsys, *options) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}


@pytest.mark.parametrize(
    "change",
    [
        ("--threshold", "percentile:50"),
        ("--threshold-scale", "0.3"),
        ("--v-init", "0"),
        ("--v-init", "gaussian:0.5:0.4"),
        ("--site", "1:scale=0.2"),
        ("--site", "1:v_init=1.5"),
        ("--steps", "3"),
        ("--images", "4"),
        ("--mean", "0.1,0.1,0.1"),
        ("--std", "0.2,0.2,0.2"),
    ],
    ids=" ".join,
)
def test_every_setting_changes_the_result(capsys, own, change):
    """The spike count is the finest number printed, so it must move."""
    base = ["run", *own, "--images", "8", "--steps", "7", "--threshold", "max"]
    first, second = (run_json(capsys, *options) for options in (base, [*base, *change]))
    assert first["spikes_per_neuron"] != second["spikes_per_neuron"]


def test_run_prints_a_table(capsys, own):
    assert main(["run", *own, "--images", "10", "--steps", "6"]) == 0
    out = capsys.readouterr().out
    for words in ("ANN top-1", "95 % interval", "Percentile(99.9, site)", "spikes per neuron and image", "2 sites"):
        assert words in out


def test_run_with_the_shipped_network_through_a_real_process():
    command = (
        "run --network resnet20-relu --images 20 --steps 4 --threshold percentile:99.9 --calibration-images 64 --json"
    )
    done = subprocess.run(
        [sys.executable, "-m", "explorer", *command.split()], cwd=ROOT, capture_output=True, text=True, check=True
    )
    result = json.loads(done.stdout)
    assert result["ann_top1"] > 0.7
    assert len(result["top1"]) == 4


def test_report_lists_every_call(capsys, own):
    network = own[: own.index("--data")]
    rows = run_json(capsys, "report", *network)["rows"]
    assert [row["node"] for row in rows if row["kind"] == "site"] == ["1", "4"]
    assert main(["report", *network]) == 0
    out = capsys.readouterr().out
    assert "2 sites with 2,080 neurons; 0 batch norms folded" in out and "0 calls without a rule" in out


def test_report_names_what_does_not_convert(capsys, own):
    network = own[: own.index("--data")]
    network[1] = network[1].replace(":make", ":gated")
    assert main(["report", *network]) == 1
    assert "does not convert: 3: SiLU" in capsys.readouterr().out
    assert main(["run", *network, *own[own.index("--data") :]]) == 2
    assert "SiLU" in capsys.readouterr().err


def test_networks_lists_cards_and_architectures(capsys):
    listed = run_json(capsys, "networks")
    assert "torchvision:resnet18" in listed["architectures"]
    assert all(0.8 < card["top1"] <= 1 for card in listed["networks"])
    assert main(["networks"]) == 0
    assert "top-1 %" in capsys.readouterr().out


def test_weights_go_onto_an_architecture(capsys, tmp_path):
    from explorer.zoo.architectures import build

    torch.manual_seed(0)
    torch.save({"state_dict": build("resnet20-relu").state_dict()}, tmp_path / "net.pth")
    options = ["--network", "resnet20-relu", "--weights", str(tmp_path / "net.pth"), "--threads", "2"]
    result = run_json(capsys, "run", *options, "--images", "6", "--steps", "2", "--calibration-images", "6")
    assert result["settings"]["weights"].endswith("net.pth")
    assert main(["report", "--network", "vgg16-relu", *options[2:4]]) == 2
    assert "not the weights of this network" in capsys.readouterr().err


BAD = [
    (["--steps", "0"], "at least 1 time-step, got 0"),
    (["--steps", "257"], "at most 256 time-steps"),
    (["--images", "0"], "images: at least 1, got 0"),
    (["--calibration-images", "-1"], "images: at least 1, got -1"),
    (["--threshold", "best"], "'best' is no rule. Write max"),
    (["--threshold", "percentile:101"], "at most 100"),
    (["--threshold", "percentile:high"], "a number, got 'high'"),
    (["--threshold", "clip"], "clip"),
    (["--threshold-scale", "-1"], "threshold scale: finite, above 0"),
    (["--threshold-scale", "nan"], "threshold scale: finite, above 0"),
    (["--v-init", "half"], "'half' is no initial potential"),
    (["--v-init", "7"], "from -1 to 2, got 7"),
    (["--v-init", "uniform:1:0"], "Swap them"),
    (["--seed", "-1"], "from 0, got -1"),
    (["--site", "nowhere:scale=2"], "nowhere: no such site. The network has 1, 4"),
    (["--site", "1"], "cannot be read"),
    (["--site", "1:scale=2", "--site", "1:v_init=0"], "given twice"),
    (["--data", "/no/such/folder"], "there is no such folder"),
    (["--mean", "1,2"], "three numbers each"),
    (["--std", "0,1,1"], "above 0"),
    (["--input-size", "2"], "4 to 1024 pixels"),
    (["--classes", "one"], "at least 2 names"),
    (["--classes", "a,b,c"], "3 names given"),
    (["--weights", "nothing.pt"], "no such file"),
    (["--weights", "assets"], "assets is a folder, not a file"),
    (["--network", "assets.pt2"], "assets.pt2: there is no such file"),
    (["--network", "nothing"], "nobody knows 'nothing'"),
    (["--network", "nothing.safetensors"], "nothing.safetensors: there is no such file"),
    (["--images", "0"], "--images: at least 1"),
    (["--calibration-images", "-5"], "--calibration-images: at least 1"),
    (["--method", "opi;cos"], "method: 'opi;cos' is none"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[" ".join(change) for change, _ in BAD])
def test_bad_input_is_one_line_and_exit_code_2(capsys, own, change, message):
    assert main(["run", *own, "--images", "4", "--steps", "2", *change]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert "Traceback" not in err


def test_a_part_of_no_weights_is_refused(capsys):
    assert main(["report", "--network", "resnet20-relu", "--part", "raw"]) == 2
    assert "Give the file by --weights" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "none is named. Choose from max-norm"),
        (" , ;", "none is named"),
        ("opi:v_init=0.4,cos", "write ; between methods"),
    ],
)
def test_methods_that_cannot_be_read_say_the_mend(capsys, own, text, words):
    assert main(["compare", *own, "--images", "4", "--methods", text]) == 2
    assert words in capsys.readouterr().err


def test_the_seed_reaches_methods_and_fewer_images_are_told(capsys, own):
    options = ["--method", "opi:v_init=uniform:0:1", "--steps", "4", "--images", "5000"]
    rows = [run_json(capsys, "run", *own, *options, "--seed", seed) for seed in ("0", "5")]
    capsys.readouterr()
    assert rows[0]["spikes_per_neuron"] != rows[1]["spikes_per_neuron"] and rows[1]["method"] == "opi:seed=5"
    options[1] += ",seed=5"
    assert run_json(capsys, "run", *own, *options)["method"] == "opi:seed=5"
    assert main(["run", *own, *options, "--json"]) == 0
    out, err = capsys.readouterr()
    assert 0 < json.loads(out)["images"] < 5000 and "5,000 were asked for" in err


def test_what_training_wrote_is_named_by_its_file(capsys, tmp_path):
    for suffix in (".safetensors", ".json"):
        shutil.copy(ASSETS / f"resnet20-clip{suffix}", tmp_path / f"mine{suffix}")
    named = ["run", "--network", str(tmp_path / "mine.safetensors"), "--images", "4", "--steps", "2"]
    assert run_json(capsys, *named)["top1"] == run_json(capsys, "run", "--network", "resnet20-clip", *named[3:])["top1"]
    (tmp_path / "mine.json").unlink()
    assert main(named) == 2
    err = capsys.readouterr().err
    assert f"mine.json is missing from {tmp_path}" in err and "git checkout" not in err


def test_help_does_not_wait_for_torch_and_an_interrupt_ends_quietly():
    """Both from the first import on."""
    code = "import sys; from explorer.cli.main import parser; parser(); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT).stdout == "False\n"
    code = "import builtins, explorer.__main__ as m; real = builtins.__import__\n"
    code += "def stop(name, *rest):\n    if name == 'explorer.cli.main': raise KeyboardInterrupt\n"
    code += "    return real(name, *rest)\n"
    code += "builtins.__import__ = stop; raise SystemExit(m.start())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (130, "stopped\n")


def test_unlabelled_pictures_are_explained(capsys, own, tmp_path):
    (tmp_path / "loose").mkdir()
    (tmp_path / "loose" / "a.png").write_bytes(picture())
    assert main(["run", *own, "--data", str(tmp_path / "loose")]) == 2
    assert "one folder per class" in capsys.readouterr().err


def test_images_of_other_classes_are_explained(capsys, own):
    assert main(["run", *own[: own.index("--data")], "--data", "embedded"]) == 2
    assert "tells other classes apart, so accuracy cannot be measured" in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["run", "--steps", "many"], ["fly"]])
def test_the_parsers_own_complaints_have_exit_code_2_as_well(options, capsys):
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and "--help lists the options" in err


@pytest.mark.parametrize("options", [["--help"], ["run", "--help"], ["report", "--help"]])
def test_help_is_there(options, capsys):
    with pytest.raises(SystemExit) as caught:
        main(options)
    assert caught.value.code == 0
    assert len(capsys.readouterr().out) > 300


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("max", MaxActivation()),
        ("max:channel", MaxActivation("channel")),
        ("percentile:99", Percentile(99.0)),
        ("percentile:99.9:channel", Percentile(99.9, "channel")),
        ("percentile:99.9:site", Percentile(99.9)),
        ("clip", TrainedClip()),
        ("mse:8", MinSquaredError(8, "site")),
        ("mse:8:channel", MinSquaredError(8, "channel")),
        ("mse", MinSquaredError(17, "site")),
    ],
)
def test_threshold_rules_are_read(text, rule):
    assert texts.threshold_rule(text, steps=17) == rule


@pytest.mark.parametrize("text", ["", "max:99", "clip:channel", "mse:x", "percentile:1:2", "percentile:"])
def test_other_texts_are_no_rules(text):
    with pytest.raises(SpecError):
        texts.threshold_rule(text, steps=17)


def test_initial_potentials_are_read():
    assert texts.initial_potential("0.25", 5) == ConstantStart(0.25)
    assert texts.initial_potential("uniform:0:1", 5) == UniformStart(0.0, 1.0, 5)
    assert texts.initial_potential("gaussian:0.5:0.1", 5) == GaussianStart(0.5, 0.1, 5)


def test_site_names_may_contain_what_they_like():
    setting = values.site_setting("features.0:1#2:scale=1.5, v_init=0.25")
    assert setting == values.SiteText("features.0:1#2", 1.5, 0.25)


def test_errors_name_the_layers_and_causes_that_cost_most(capsys, own):
    options = ("report", "--errors", *own, "--images", "10", "--steps", "6", "--threshold", "max")
    told = run_json(capsys, *options)
    assert {row["site"] for row in told["sites"]} == {"1", "4"} and told["images"] == 10
    for row in told["sites"]:
        parts = [row[cause] for cause in ("clipping", "quantisation", "unevenness", "inherited")]
        assert row["squared"] > 0 and abs(sum(parts) - row["squared"]) < 1e-9
    first = next(row for row in told["sites"] if row["site"] == "1")
    assert first["inherited"] == pytest.approx(0, abs=1e-9), "the image is the first layer's input, without an error"
    assert [row["own"] for row in told["sites"]] == sorted((row["own"] for row in told["sites"]), reverse=True)
    longer = run_json(capsys, *options[:-4], "--steps", "64", "--threshold", "max")
    assert longer["sites"][0]["squared"] < told["sites"][0]["squared"] / 4
    assert main([*options]) == 0
    out = capsys.readouterr().out
    assert f"costs most: {told['sites'][0]['site']}, by " in out and "unevenness %" in out


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.GELU(), nn.Flatten(), nn.Linear(1568, 10))", "2: GELU"),
        ("torch.jit.script(nn.Sequential(nn.Flatten(), nn.Linear(768, 2)))", "a scripted network"),
        ("type('N', (nn.Linear,), {'forward': lambda s, x: s.weight * (x.sum() > 0)})(2, 1)", "data|class scores"),
        ("type('N', (nn.Module,), {'forward': lambda s, x: 1 / 0})()", "division by zero"),
    ],
)
def test_a_network_that_cannot_be_read_ends_in_words_and_code_2(capsys, tmp_path, body, words):
    (tmp_path / "own.py").write_text(f"import torch\nfrom torch import nn\ndef make():\n    return {body}\n")
    options = ["--network", f"{tmp_path}/own.py:make", "--input-size", "16", "--images", "4", "--steps", "4"]
    assert main(["run", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    assert re.search(words, error)


@pytest.mark.parametrize("kind", ["double", "half", "bfloat16"])
def test_networks_in_other_types_are_taken_as_float32_and_the_report_says_so(capsys, own, kind):
    path = Path(own[1].rsplit(":", 1)[0])
    path.write_text(f"{OWN}\ndef other():\n    return make().{kind}()\n")
    own[1] = f"{path}:other"
    network = own[: own.index("--data")]
    assert main(["report", *network]) == 0
    name = {"double": "float64", "half": "float16"}.get(kind, kind)
    assert f"{name} weights are taken as float32" in capsys.readouterr().out
    result = run_json(capsys, "run", *own, "--images", "10", "--steps", "6", "--threshold", "max")
    assert len(result["top1"]) == 6


def test_a_network_that_squeezes_everything_is_not_refused_for_its_single_image(capsys, own):
    path = Path(own[1].rsplit(":", 1)[0])
    layer = "type('S', (nn.Module,), {'forward': lambda self, x: x.squeeze()})()"
    squeezed = f"nn.Sequential(*make()[:5], nn.AdaptiveAvgPool2d(1), {layer}, nn.Linear(8, 2))"
    path.write_text(f"{OWN}\ndef squeezed():\n    return {squeezed}\n")
    assert main(["report", "--network", f"{path}:squeezed", "--input-size", "16"]) == 0


HOSTILE = [
    (["--input-size", "0"], "4 to 1024 pixels, got 0"),
    (["--threads", "-3"], "threads: 0 (torch's choice) to 1024, got -3"),
    (["--threads", "99999"], "got 99999"),
    (["--seed", "9" * 30], "seed: at most"),
    (["--mean", ""], "mean: a number, got ''"),
    (["--classes", ""], "at least 2 names"),
    (["--classes", ",".join(f"breed number {i}" for i in range(99))], "99 names given"),
    (["--data", "x" * 300], "there is no such folder"),
    (["--data", "a\0b"], "there is no such folder"),
    (["--data", "~nobody-of-this-name/x"], "there is no such folder"),
    (["--weights", "x" * 300], "no such file"),
    (["--weights", "a\0b"], "no such file"),
    (["--network", "x" * 5000], "nobody knows"),
    (["--network", "a\0b"], "nobody knows"),
    (["--network", "torchvision:" + "x" * 5000], "no classification network"),
    (["--network", "x" * 300 + ".py:make"], "no such file"),
    (["--network", "x" * 300 + ".pt2"], "no such file"),
]


@pytest.mark.parametrize(("change", "message"), HOSTILE, ids=[" ".join(change)[:30] for change, _ in HOSTILE])
def test_texts_that_are_no_paths_and_numbers_out_of_range(capsys, own, change, message):
    assert main(["run", *own, "--images", "4", "--steps", "2", *change]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("error: ")
    assert len(err) < 1700


def test_class_names_in_a_file_that_is_no_text(capsys, own, tmp_path):
    (tmp_path / "names.txt").write_bytes("Käse\nBrot".encode("latin-1"))
    assert main(["run", *own, "--classes", str(tmp_path / "names.txt")]) == 2
    assert "no text in UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["module", "factory", "forward"])
def test_a_python_file_that_exits_is_explained(capsys, own, tmp_path, where):
    parts = {key: "raise SystemExit(3)" if key == where else "pass" for key in ("module", "factory", "forward")}
    (tmp_path / "exits.py").write_text(
        f"from torch import nn\n{parts['module']}\nclass Net(nn.Module):\n    def forward(self, x):\n"
        f"        {parts['forward']}\ndef make():\n    {parts['factory']}\n    return Net()\n"
    )
    assert main(["report", "--network", f"{tmp_path}/exits.py:make"]) == 2
    assert "SystemExit: 3" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("options", [[], ["--json"]])
def test_output_to_a_full_device_is_one_line(options):
    command = [sys.executable, "-m", "explorer", "networks", *options]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: the result cannot be written")
    assert len(done.stderr.splitlines()) == 1


def test_names_that_the_terminal_cannot_show_do_no_harm(own, tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\ndef make():\n    raise ValueError('\\x1b[2J\\u2603' + 'x' * 10**6)\n"
    )
    command = [sys.executable, "-m", "explorer", "report", "--network", f"{tmp_path}/net.py:make"]
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=False)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "\x1b" not in done.stderr
    assert len(done.stderr) < 2000


def test_a_fault_that_nobody_foresaw_is_one_line(capsys, monkeypatch):
    from explorer.cli import commands

    def fail(_):
        raise LookupError("something odd")

    monkeypatch.setattr(commands, "networks", fail)
    assert main(["networks"]) == 2
    assert "error: something in the explorer failed (LookupError: something odd)" in capsys.readouterr().err
    monkeypatch.setenv("EXPLORER_TRACEBACK", "1")
    with pytest.raises(LookupError):
        main(["networks"])
