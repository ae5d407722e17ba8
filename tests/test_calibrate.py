"""Calibration for T: exact, order-free, and never worse by the measure that it minimises."""

from __future__ import annotations

import json
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import OptionAResNet, Perceptron, images, make
from reference import NEURONS

from explorer.cli.main import main
from explorer.engine import Cancelled, Record, SimulationSpec, SpecError, methods, simulate, trace
from explorer.engine.graph.network import state_fingerprint
from explorer.engine.kernels import backend
from explorer.engine.methods import fitting
from explorer.engine.methods.calibrate import parts
from explorer.engine.methods.calibrate.parts import Best
from explorer.engine.methods.calibrate.refit import ridge
from explorer.engine.methods.calibrate.sample import in_order
from explorer.engine.methods.calibrate.scanner import Scanner, Trial
from explorer.engine.methods.calibrate.waterfall import waterfall
from explorer.engine.neurons import law_named
from explorer.engine.simulation.keys import image_keys
from explorer.zoo.data import Embedded, load_images
from explorer.zoo.images import normalise
from explorer.zoo.registry import load

T = 4
LAWS = ("integrate_and_fire", "signed", "signed_at_zero")


@pytest.fixture(scope="module")
def network():
    return trace(make(OptionAResNet), images(1))


@pytest.fixture(scope="module")
def pictures():
    return images(40, seed=7)


def fit(network, pictures, text="calibrate", **how):
    return methods.parse(text).fit(network, T, pictures, **how)


def digests(fitted):
    """Tell calibrated networks apart, whatever the few held-back images say of them."""
    snn = fitted.candidate
    return {name: neurons.digest for name, neurons in snn.neurons.items()}, snn.network.fingerprint


def scanner_of(law, seed, channels=3, size=40, regress=True):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(size, channels, generator=generator)
    x = mean + 0.8 * torch.randn(T, size, channels, generator=generator)
    a = (mean + 0.1 * torch.randn(size, channels, generator=generator)).clamp(min=0)
    return Scanner(backend("cpu"), law_named(law), x, a, torch.full((1, channels), 0.5), regress)


def squared_error(scanner, trial):
    """Run one neuron after the other, in float64."""
    size, channels = scanner.a.shape
    error = np.zeros(channels)
    for c in range(channels):
        theta = float(trial.theta[c])
        for s in range(size):
            x = (scanner.x[:, s, c] + trial.shift[:, c]).double().tolist()
            spikes, _ = NEURONS[scanner.law.name](x, theta, 0.5 * theta)
            error[c] += (float(trial.amplitude[c]) * sum(spikes) / T - float(scanner.a[s, c])) ** 2 / size
    return error


@pytest.mark.parametrize("law", LAWS)
def test_a_trial_is_measured_as_a_loop_over_single_neurons_measures_it(law):
    scanner = scanner_of(law, 1)
    trial = Trial(torch.tensor([0.9, 0.5, 1.4]), torch.tensor([1.0, 0.6, 1.1]), 0.1 * torch.randn(T, 3))
    fitted, error = scanner.measured(trial)
    assert (fitted.amplitude != trial.amplitude).all()
    assert error.numpy() == pytest.approx(squared_error(scanner, fitted), rel=1e-4)
    for factor in (0.98, 1.02):
        other = replace(fitted, amplitude=fitted.amplitude * factor)
        assert (squared_error(scanner, other) > squared_error(scanner, fitted)).all(), "regression is the least"


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(LAWS), st.integers(0, 10**6), st.booleans())
def test_no_part_raises_the_error_it_minimises(law, seed, regress):
    scanner = scanner_of(law, seed, regress=regress)
    first = Trial(torch.full((3,), 1.5), torch.full((3,), 1.5), torch.zeros(T, 3))
    first, error = scanner.measured(first)
    best, start = Best(first, error), error.clone()
    top = scanner.a.amax(0)
    for part in (
        lambda b: parts.thresholds(scanner, b, top),
        lambda b: parts.shift(scanner, b),
        lambda b: parts.steps(scanner, b, 2),
        lambda b: parts.nearby(scanner, b),
    ):
        after = part(best)
        assert (after.error <= best.error).all()
        _, again = scanner.measured(after.trial)
        assert torch.allclose(again, after.error), "the error told is the error of the parameters told"
        best = after
    assert (best.error < start).any()


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(LAWS), st.integers(0, 10**6))
def test_evening_out_never_raises_what_it_is_judged_by(law, seed):
    scanner = scanner_of(law, seed)
    first = Trial(torch.full((3,), 1.0), torch.full((3,), 1.0), torch.zeros(T, 3))
    best = Best(*scanner.measured(first))

    def uneven(trial):
        return (scanner.mean - scanner.per_step(trial)).square().mean(0)

    after = parts.even(scanner, best)
    if scanner.law.memory:
        assert (uneven(after.trial) <= uneven(best.trial)).all()
        assert (uneven(after.trial) < uneven(best.trial)).any()
    else:  # what cannot be taken back is judged by the error alone
        assert (after.error <= best.error).all()
    _, again = scanner.measured(after.trial)
    assert torch.allclose(again, after.error)


def test_every_part_changes_the_result(network, pictures):
    few = pictures[:16]
    whole = digests(fit(network, few, "calibrate:samples=256"))
    for part in ("fit_threshold=false", "fit_shift=false", "fit_amplitude=false", "fit_even=false", "fit_steps=0"):
        assert digests(fit(network, few, f"calibrate:samples=256,{part}")) != whole, part
    for other in ("fit_weights=true,samples=256", "samples=16", "held_back=0.5,samples=256", "seed=1,samples=256"):
        assert digests(fit(network, few, f"calibrate:{other}")) != whole, other
    refitted = digests(fit(network, few, "calibrate:fit_weights=true,samples=256"))
    assert digests(fit(network, few, "calibrate:fit_weights=true,ridge=1,samples=256")) != refitted


@pytest.mark.parametrize("text", ["calibrate", "calibrate-signed", "calibrate:fit_weights=true,samples=512"])
def test_the_same_whatever_the_order_of_images_and_the_batch(network, pictures, text, monkeypatch):
    once = fit(network, pictures, text)
    mixed = pictures[torch.randperm(len(pictures), generator=torch.Generator().manual_seed(3))]
    assert digests(fit(network, mixed, text)) == digests(once)
    assert fit(network, mixed, text).layers == once.layers
    if "weights" not in text:  # sums of float products, cut differently, differ in their last bits
        monkeypatch.setattr(fitting, "CURRENT_BYTES", 4 * T * 2048 * 5)
        assert digests(fit(network, mixed, text)) == digests(once)


@pytest.mark.parametrize("text", ["calibrate", "calibrate-signed", "calibrate:v_init=uniform:0:1,seed=3"])
def test_the_error_told_is_that_of_a_simulation(network, pictures, text):
    text += ("," if ":" in text else ":") + "held_back=0,samples=65536"
    fitted = fit(network, pictures, text)
    ordered = in_order(pictures)
    sim = simulate(fitted.snn, ordered, SimulationSpec(T, Record()))
    for row in fitted.layers:
        a = network.activations(ordered, [row.site])[row.site].double()
        worth = fitted.snn.neurons[row.site].worth.double()
        error = (worth * sim.counts[row.site].double() / T - a).square().mean() / a.square().mean()
        assert row.after == pytest.approx(float(error), rel=1e-4)
        assert row.after <= row.before


def test_unseen_images_get_scores_closer_to_the_anns(network):
    unseen, seen = images(200, seed=11), images(64, seed=12)
    ann, error = network.forward(unseen), {}
    for key in ("opi", "calibrate", "calibrate-signed"):
        fitted = methods.get(key)().fit(network, 2, seen)
        error[key] = float((fitted.scores(unseen)[-1] - ann).square().mean())
    assert error["calibrate"] < 0.6 * error["opi"] and error["calibrate-signed"] < 0.6 * error["opi"], error


@pytest.mark.parametrize("text", ["calibrate", "calibrate:fit_weights=true"])
def test_the_given_network_is_left_as_it_was(network, pictures, text):
    before, scores = state_fingerprint(network.graph_module), network.forward(pictures)
    fitted = fit(network, pictures, f"{text},held_back=0" if ":" in text else f"{text}:held_back=0")
    assert state_fingerprint(network.graph_module) == before == network.fingerprint
    assert torch.equal(network.forward(pictures), scores)
    assert fitted.network is network
    assert fitted.refitted == (fitted.snn.network is not network) == ("weights" in text)
    if "weights" in text:
        own = fitted.snn.network
        assert own.fingerprint == state_fingerprint(own.graph_module) != before
        assert any(row.refitted > 0 for row in fitted.layers)


def test_refitted_weights_are_the_least_squares_solution():
    generator = torch.Generator().manual_seed(2)
    u = torch.randn(50, 6, generator=generator).double()
    residual = torch.randn(50, 4, generator=generator).double()
    for share in (1e-6, 1e-2, 3.0):
        root = (share * u.square().mean() * len(u)).sqrt()
        rows = torch.cat([torch.cat([u, torch.ones(50, 1)], 1), torch.cat([root * torch.eye(6), torch.zeros(6, 1)], 1)])
        wanted = torch.linalg.lstsq(rows, torch.cat([residual, torch.zeros(6, 4)])).solution
        assert torch.allclose(ridge(u, residual, share), wanted, atol=1e-10)
    assert ridge(torch.zeros(5, 2), torch.ones(5, 1), 1e-3).tolist() == [[0.0], [0.0], [1.0]]


def test_a_refit_brings_a_site_closer_to_the_ann(network, pictures):
    plain, refitted = fit(network, pictures), fit(network, pictures, "calibrate:fit_weights=true")
    assert refitted.layers[-1].after < plain.layers[-1].after


def test_held_back_images_change_nothing_but_the_verdict(network, pictures):
    ordered = in_order(pictures)
    held = round(0.25 * len(ordered))
    fitted = fit(network, ordered)
    alone = fit(network, ordered[held:], "calibrate:held_back=0")
    assert digests(alone) == digests(fitted)
    assert (fitted.held.images, alone.held) == (held, None)


def test_opi_is_kept_where_calibration_agrees_less(network, pictures, monkeypatch):
    def spoilt(sample, base, which, on_progress=None):
        neurons = {name: replace(n, gate=torch.zeros(1, dtype=torch.bool)) for name, n in base.neurons.items()}
        return replace(base, neurons=neurons), ()

    monkeypatch.setattr("explorer.engine.methods.catalogue.calibrate.fit_layers", spoilt)
    fitted = fit(network, pictures, "calibrate-signed")
    assert not fitted.kept and fitted.held.calibrated < fitted.held.opi
    opi = methods.get("opi")().fit(network, T, in_order(pictures)[fitted.held.images :])
    assert fitted.snn.network is network and list(fitted.snn.neurons) == list(opi.snn.neurons)
    assert all(own.digest == opi.snn.neurons[name].digest for name, own in fitted.snn.neurons.items())


def test_it_can_be_cancelled_at_every_stage(network):
    few, asked = images(10), [0]

    def never():
        asked[0] += 1
        return False

    whole = digests(fit(network, few, "calibrate:fit_weights=true", stop=never))
    assert asked[0] > 100
    for k in range(0, asked[0], max(1, asked[0] // 8)):
        calls = iter(range(asked[0]))
        with pytest.raises(Cancelled):
            fit(network, few, "calibrate:fit_weights=true", stop=lambda calls=calls, k=k: next(calls) >= k)
    assert digests(fit(network, few, "calibrate:fit_weights=true")) == whole


def test_progress_is_told_layer_by_layer(network):
    told = []
    fit(network, images(8), on_progress=lambda done, total: told.append((done, total)))
    n = len(network.sites)
    assert told == [(i + 1, n) for i in range(n)]


def test_two_visitors_calibrate_at_once(network, pictures):
    texts = ("calibrate", "calibrate-signed:fit_weights=true")
    alone = [digests(fit(network, pictures, text)) for text in texts]
    found = {}
    threads = [
        threading.Thread(target=lambda t=text: found.update({t: digests(fit(network, pictures, t))})) for text in texts
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[text] for text in texts] == alone


def test_a_waterfall_adds_the_parts_one_by_one(network):
    seen, unseen = images(32, seed=3), images(60, seed=4)
    labels = network.forward(unseen).argmax(1)
    method = methods.parse("calibrate-signed:samples=512,fit_steps=1")
    told = []
    stages = waterfall(method, network, 2, seen, (unseen, labels), on_progress=lambda *n: told.append(n))
    assert [stage.part for stage in stages] == [
        "opi", "law", "fit_threshold", "fit_shift", "fit_even", "fit_steps", "fit_amplitude"
    ]  # fmt: skip
    assert told == [(i + 1, 7) for i in range(7)]
    opi = methods.get("opi")().fit(network, 2, in_order(seen)[8:])
    assert stages[0].top1 == pytest.approx(float((opi.scores(unseen)[-1].argmax(1) == labels).double().mean()))
    whole = method.fit(network, 2, seen)
    assert stages[-1].agreement == whole.held.calibrated
    assert stages[-1].error == pytest.approx(np.mean([row.after for row in whole.layers]))
    assert stages[-1].error < 0.8 * stages[0].error
    with pytest.raises(SpecError, match="no image is held back"):
        waterfall(replace(method, held_back=0.0), network, 2, seen)


def test_the_command_line_calibrates_on_training_images_alone_and_gives_what_the_api_gives(monkeypatch, capsys):
    seen = set()
    whole = fitting.Probe.__init__

    def watched(self, network, images, *rest):
        seen.update(image_keys(images))
        whole(self, network, images, *rest)

    monkeypatch.setattr(fitting.Probe, "__init__", watched)
    text = "calibrate:samples=64,fit_steps=0"
    words = ["run", "--method", text, "--steps", "2", "--images", "24", "--calibration-images", "20", "--json"]
    assert main(words) == 0
    row = json.loads(capsys.readouterr().out)
    net, card = load("resnet20-relu")
    tested = load_images(Embedded(), card, 24, "evaluation")
    planted = image_keys(normalise(tested.images[:], card))
    assert len(seen) == 20 and not seen & set(planted)
    training = normalise(load_images(Embedded(), card, 20, "calibration").images[:], card)
    inputs = normalise(tested.images[:], card)
    again = methods.parse(text).fit(trace(net, inputs[:1]), 2, training).scores(inputs)[-1].argmax(1).numpy()
    assert row["top1"] == pytest.approx((again == np.asarray(tested.labels)).mean()) and row["T"] == 2


def test_layers_without_a_map_and_sites_that_stay_silent():
    net = make(Perceptron)
    with torch.no_grad():
        net.fc[0].bias[:5] = -1e3
    silent = trace(net, images(1))
    fitted = methods.get("calibrate")().fit(silent, T, images(32))
    sim = simulate(fitted.snn, images(32), SimulationSpec(T, Record()))
    first = silent.sites[0].name
    assert (sim.counts[first][:, :5] == 0).all() and (sim.counts[first][:, 5:] > 0).any()
