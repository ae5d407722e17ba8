"""Fine-tuning: gradients against finite differences, spikes against the engine's, order, seeds, stops."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import networks
import pytest
import torch
from torch import nn

from explorer.engine import (
    CalibrationSpec,
    Cancelled,
    DataError,
    Percentile,
    SimulationSpec,
    SpecError,
    TrainedClip,
    calibrate,
    convert,
    simulate,
    trace,
)
from explorer.engine.finetune.progress import METHODS
from explorer.engine.finetune.representation import Representation, fire
from explorer.engine.finetune.surrogate import Spikes
from explorer.engine.finetune.tunable import Timed, Tunable
from explorer.engine.finetune.tuning import Held, Tuning, TuningSpec
from explorer.engine.graph.network import state_fingerprint
from explorer.engine.neurons.parameters import Neurons


def tiny():
    """Two sites: one on maps, one on features."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.AvgPool2d(4),
        nn.Flatten(),
        nn.Linear(64, 6),
        nn.ReLU(),
        nn.Linear(6, 3),
    )
    networks.stir(net)
    net[5].weight.data *= 3
    net[7].weight.data *= 6
    return net


def spiking(network, images, per="channel"):
    return convert(network, calibrate(network, images, CalibrationSpec(Percentile(80.0, per))))


@dataclass(frozen=True, eq=False)
class Pictures:
    """Images as they are; what was taken is noted."""

    images: torch.Tensor
    labels: torch.Tensor | None
    taken: list

    def __len__(self):
        return len(self.images)

    def take(self, index, turn):
        self.taken.append(index)
        return self.images[index]


def start(labelled=True, stop=None, **fields):
    network = trace(tiny(), networks.images(1))
    images = networks.images(40)
    labels = network.forward(images).argmax(1) if labelled else None
    train, held = Pictures(images[:24], labels[:24] if labelled else None, []), images[24:]
    spec = TuningSpec(**{"T": 3, "updates": 6, "batch": 8, "rate": 0.01, "judge_every": 2, **fields})
    snn = spiking(network, images[:24])
    return Tuning(network, snn, spec, train, Held(held, labels[24:] if labelled else None), stop)


def counted(x, theta, T):
    """One neuron, step by step, constant current: the slow obvious loop."""
    v, n = theta / 2, 0
    for _ in range(T):
        v += x
        if v >= theta:
            v, n = v - theta, n + 1
    return n


@pytest.mark.parametrize("T", [2, 3, 7])
def test_the_neurons_fire_as_the_obvious_loop(T):
    torch.manual_seed(T)
    x = torch.randn(T, 5, 4, 3, 3, dtype=torch.float64)
    theta = torch.rand(4, 1, 1, dtype=torch.float64) + 0.3
    n, sent = fire(x.mean(0), x[:-1].flatten(0, 1), theta, T)
    v, count = (theta / 2).expand(5, 4, 3, 3).clone(), torch.zeros(5, 4, 3, 3, dtype=torch.float64)
    for t in range(T):
        v = v + x[t]
        z = (v >= theta).double()
        v, count = v - theta * z, count + z
        if t < T - 1:
            assert torch.equal(sent.unflatten(0, (T - 1, 5))[t], theta * z)
    assert torch.equal(n, count)
    assert (n > 0).any() and (n < T).any()


def slow(x, theta):
    """What a neuron sends, one step after the other, its slope that of a triangle: the obvious loop, on autograd."""
    v, sent = (theta / 2).expand(x.shape[1:]), []
    for current in x:
        u = v + current
        share = u / theta
        slope = (1 - (share - 1).abs()).clamp(min=0).detach()
        s = theta * ((u >= theta).double() + slope * (share - share.detach()))
        v = u - s
        sent.append(s)
    return torch.stack(sent)


@pytest.mark.parametrize("one", [False, True])
@pytest.mark.parametrize("T", [2, 5])
def test_through_time_spikes_and_gradients_are_those_of_the_obvious_loop(T, one):
    torch.manual_seed(T)
    x = torch.randn(T, 5, 4, 3, 3, dtype=torch.float64)
    theta = torch.tensor(0.7, dtype=torch.float64) if one else torch.rand(4, 1, 1, dtype=torch.float64) + 0.3
    weights, found = torch.randn(T, 5, 4, 3, 3, dtype=torch.float64), []
    for way in (slow, lambda x, theta: Spikes.apply(x.flatten(0, 1), theta, T).unflatten(0, (T, 5))):
        given, bound = x.clone().requires_grad_(), theta.clone().requires_grad_()
        sent = way(given, bound)
        (sent * weights).sum().backward()
        found.append((sent.detach(), given.grad, bound.grad))
    assert torch.equal(found[0][0] > 0, found[1][0] > 0) and (found[0][0] > 0).any()
    for expected, got in zip(*found, strict=True):
        assert torch.allclose(expected, got, atol=1e-12) and expected.abs().max() > 0


@pytest.mark.parametrize("x", [-0.4, 0.15, 0.35, 0.62, 1.3])
def test_one_neurons_gradient_is_the_slope_of_its_expected_representation(x):
    """Expected: currents uniform in the step of the staircase around x, which is where OPI's half comes from."""
    T, theta, h = 8, 0.8, 0.02

    def expected(x, theta):
        phases = (torch.arange(2000, dtype=torch.float64) + 0.5) / 2000 - 0.5
        return sum(theta * counted(float(x + p * theta / T), theta, T) / T for p in phases) / 2000

    mean = torch.tensor([[x]], dtype=torch.float64, requires_grad=True)
    bound = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    n, _ = fire(mean, None, bound, T)
    Representation.apply(mean, bound, n * bound.detach() / T).sum().backward()
    assert float(mean.grad) == pytest.approx((expected(x + h, theta) - expected(x - h, theta)) / (2 * h), abs=2e-2)
    assert float(bound.grad) == pytest.approx((expected(x, theta + h) - expected(x, theta - h)) / (2 * h), abs=2e-2)


@pytest.mark.parametrize("per", ["site", "channel"])
def test_a_networks_gradients_are_the_slopes_of_its_expected_representation(per):
    """Around the spikes sent, every site counts as clip(mean, 0, theta) plus what the spikes differ from that by."""
    network, images = trace(tiny(), networks.images(1)), networks.images(6)
    net = Tunable(network, spiking(network, images, per).neurons, 4, images).double()
    weights = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    (net(images.double()) * weights).sum().backward()
    seen = {}

    def expected(record):
        def site(place, x):
            mean = x if isinstance(x, torch.Tensor) else x.mean
            clip = torch.minimum(mean.clamp(min=0), net.theta[place.order])
            if record:
                steps = None if isinstance(x, torch.Tensor) else x.steps
                n, sent = fire(mean, steps, net.theta[place.order], 4)
                seen[place.name] = n * net.theta[place.order] / 4 - clip
                return Timed(n * net.theta[place.order] / 4, sent)
            return clip + seen[place.name]

        other = copy.copy(net)  # its site replaced, its parameters shared
        other.__dict__["_site"] = site
        with torch.no_grad():
            return float((other(images.double()) * weights).sum())

    base = expected(True)
    assert base == pytest.approx(float((net(images.double()) * weights).sum()))
    compared = 0
    for parameter in net.trained():
        flat, slope = parameter.data.view(-1), parameter.grad.reshape(-1)
        for i in range(0, len(flat), max(1, len(flat) // 3)):
            kept, h = float(flat[i]), 1e-6
            flat[i] = kept + h
            above = expected(False)
            flat[i] = kept - h
            below = expected(False)
            flat[i] = kept
            assert float(slope[i]) == pytest.approx((above - below) / (2 * h), abs=1e-5)
            compared += float(slope[i]) != 0
    assert compared > 10


KINDS = [
    kind for kind in networks.GALLERY if kind.__name__ in ("OptionAResNet", "ReusedReLU", "ReusedConvolution", "Nested")
]


@pytest.mark.parametrize("kind", KINDS)
def test_it_spikes_as_the_engine_does_and_so_does_what_comes_out(kind):
    net = networks.make(kind)
    images = networks.images(24)
    network = trace(net, images[:1])
    snn = spiking(network, images)
    tunable = Tunable(network, snn.neurons, 5, images).eval()
    tuned = tunable.traced()
    again = convert(tuned, calibrate(tuned, torch.empty(0), CalibrationSpec(TrainedClip())))
    with torch.no_grad():
        scores = tunable(images)
        through = Tunable(network, snn.neurons, 5, images, through_time=True).eval()(images)
    assert torch.allclose(through, scores, atol=1e-5)
    for other in (snn, again):
        theirs = simulate(other, images, SimulationSpec(5)).logits[-1]
        same = ((scores - theirs).abs().amax(1) < 1e-3).double().mean()
        assert same >= 0.8, same  # a spike within rounding of its threshold may differ
    assert tuned.clips_trained and [s.shape for s in tuned.sites] == [s.shape for s in network.sites]
    ann = tunable.module()(images)
    assert torch.allclose(tuned.forward(images), ann, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_training_lowers_the_loss_and_leaves_the_network_as_found(method):
    tuning = start(method=method, updates=60, judge_every=5)
    before = state_fingerprint(tuning.ann.graph_module)
    steps = list(tuning.run())
    assert [p.update for p in steps] == list(range(1, 61)) and tuning.done
    assert min(j.loss for j in tuning.judged[1:]) < tuning.judged[0].loss
    assert tuning.best.accuracy >= tuning.judged[0].accuracy
    assert state_fingerprint(tuning.ann.graph_module) == before
    assert not any(p.requires_grad or p.grad is not None for p in tuning.ann.graph_module.parameters())
    assert steps[-1].theta != steps[0].theta


def test_several_numbers_of_steps_take_turns_on_the_same_weights():
    tuning = start(method="hybrid", updates=6, also=(5, 0), judge_every=6)
    taken, run_for = [], tuning.net.run_for
    tuning.net.run_for = lambda T: (taken.append(T), run_for(T))
    first = tuning.step()
    assert taken == [3] and first.loss > 0
    list(tuning.run())
    assert taken == [3, 5, 0] * 3  # six updates and one look
    images, right = tuning.held.images, tuning.right
    shares = []
    for T in (3, 5):
        run_for(T)
        with torch.no_grad():
            shares.append(float((tuning.net(images).argmax(1) == right).double().mean()))
    assert tuning.judged[-1].accuracy == pytest.approx(sum(shares) / 2)
    run_for(0)
    with torch.no_grad():
        assert torch.allclose(tuning.net(images), tuning.net.module()(images), atol=1e-5)


@pytest.mark.parametrize("method", ["dsr", "hybrid"])
def test_large_convolutions_may_keep_their_weights_up_to_a_factor_a_channel(method):
    """Gradients are those with nothing frozen; what is frozen stays; its factors, offsets and thresholds move."""
    free, held = (start(method=method, frozen_above=above) for above in (0, 100))
    grads = []
    for tuning in (free, held):
        net = tuning.net
        net(tuning.held.images).square().sum().backward()
        grads.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
        net.zero_grad()
    left_out = set(grads[0]) - set(grads[1])
    sizes = {name: p.numel() for name, p in held.net.named_parameters()}
    frozen = {f"body.{node.target}.weight" for node in held.net.nodes.values() if node.name in held.net.gain}
    frozen = {name for name in frozen if sizes[name] > 100}
    assert left_out == frozen and frozen
    for name, grad in grads[1].items():
        assert torch.allclose(grad, grads[0][name], rtol=1e-3, atol=1e-4 * float(grad.abs().max())), name
    before = held.net.state()
    list(held.run())
    after = held.net.state()
    assert {name for name in after if torch.equal(after[name], before[name]) and name in sizes} == frozen


def test_tandem_turns_layer_after_layer_to_spikes_and_leaves_alone_what_lies_before():
    tuning = start(method="tandem", updates=12, judge_every=1)
    spiking, first = [], tuning.net.state()
    for progress in tuning.run():
        spiking.append(progress.spiking)
    assert spiking == sorted(spiking) and set(spiking) == {1, 2}
    last = tuning.net.state()
    changed = {name for name in first if not torch.equal(first[name], last[name])}
    assert not any(name.startswith(("gain", "theta.0")) for name in changed)
    assert {"theta.1", "body.5.weight", "body.7.weight"} <= changed
    dsr = start(updates=12)
    first = dsr.net.state()
    list(dsr.run())
    assert all(not torch.equal(first[name], value) for name, value in dsr.net.state().items() if "theta" in name)


def test_the_seed_decides_everything():
    a, b, c = start(), start(), start(seed=1)
    for each in (a, b, c):
        list(each.run())
    assert all(torch.equal(x, b.net.state()[name]) for name, x in a.net.state().items())
    assert any(not torch.equal(x, c.net.state()[name]) for name, x in a.net.state().items())


@pytest.mark.parametrize("method", METHODS)
def test_it_goes_on_from_what_was_kept(method):
    whole, half = start(method=method), start(method=method)
    list(whole.run())
    for _ in range(3):
        half.step()
    resumed = start(method=method)
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    list(resumed.run())
    assert all(torch.equal(x, resumed.net.state()[name]) for name, x in whole.net.state().items())
    assert resumed.judged == whole.judged
    with pytest.raises(SpecError, match="other settings"):
        start(method=method, rate=0.02).load_state_dict(half.state_dict())


def test_it_stops_at_every_stage_and_goes_on_afterwards():
    asked = []
    whole = start(stop=lambda: asked.append(1) or False)
    list(whole.run())
    assert len(asked) > 6
    for nth in range(1, len(asked) + 1):
        left = [nth]

        def stop(left=left):
            left[0] -= 1
            return left[0] == 0

        try:
            tuning = start(stop=stop)
        except Cancelled:
            continue
        with pytest.raises(Cancelled, match="stopped"):
            list(tuning.run())
    list(tuning.run())
    assert tuning.done and tuning.net.spiking == 2
    assert all(torch.equal(x, tuning.net.state()[name]) for name, x in whole.net.state().items())


def test_it_trains_on_the_training_images_alone():
    """A held-back image is planted that would spoil every weight it touched."""
    tuning = start(updates=9)
    tuning.held.images[3] = torch.inf
    list(tuning.run())
    assert sorted(torch.cat(tuning.pictures.taken[1:]).tolist()) == sorted([*range(24)] * 3)
    assert all(bool(value.isfinite().all()) for value in tuning.net.state().values())


def test_without_labels_the_ann_is_the_target():
    tuning = start(labelled=False, updates=40, judge_every=10)
    assert len(tuning.right.unique()) > 1 and tuning.judged[0].accuracy < 1
    assert torch.equal(tuning.right, tuning.ann.forward(tuning.held.images).argmax(1))
    list(tuning.run())
    assert min(j.loss for j in tuning.judged[1:]) < tuning.judged[0].loss


def test_the_result_is_the_best_state_also_when_that_is_the_start():
    tuning = start(updates=6)
    first = tuning.net.state()
    tuning.judged[0] = replace(tuning.judged[0], accuracy=1.0)
    list(tuning.run())
    assert tuning.best.update == 0
    assert all(torch.equal(x, tuning.result().state()[name]) for name, x in first.items())
    last = tuning.result(last=True).state()
    assert all(torch.equal(x, last[name]) for name, x in tuning.net.state().items())
    assert not all(torch.equal(x, last[name]) for name, x in first.items())


def test_a_shift_to_start_with_goes_into_the_offsets():
    network, images = trace(tiny(), networks.images(1)), networks.images(8)
    neurons = spiking(network, images).neurons
    shifts = {"2": torch.tensor([0.1, -0.2, 0.3, 0.0]).view(4, 1, 1), "6": torch.full((3, 6), 0.25)}
    shifted = {name: replace(own, shift=shifts[name]) for name, own in neurons.items()}
    plain, moved = Tunable(network, neurons, 3, images), Tunable(network, shifted, 3, images)
    before, after = (each.body.get_submodule("0_folded").bias for each in (plain, moved))
    assert torch.allclose(after, before + shifts["2"].flatten())
    assert torch.allclose(moved.body.get_submodule("5").bias, plain.body.get_submodule("5").bias + 0.25)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"T": 1}, "at least 2 time-steps, got 1"),
        ({"T": 300}, "at most 256"),
        ({"method": "bptt"}, "one of dsr, hybrid, tandem"),
        ({"also": (1,)}, "at least 2 time-steps, or 0"),
        ({"also": (0, 999)}, "at most 256"),
        ({"updates": 0}, "a whole number from 1"),
        ({"rate": 0.0}, "above 0"),
        ({"rate": float("nan")}, "above 0"),
        ({"share": 1.5}, "from 0 to 1"),
        ({"temperature": 0.0}, "above 0"),
    ],
)
def test_settings_out_of_range_are_refused(fields, why):
    with pytest.raises(SpecError, match=why):
        TuningSpec(**fields)


def test_faults_say_the_mend():
    network = trace(tiny(), networks.images(1))
    images = networks.images(8)
    snn = spiking(network, images)
    with pytest.raises(DataError, match="held back"):
        Tuning(network, snn, TuningSpec(), Pictures(images, None, []), Held(images[:0]))
    per_neuron = {**snn.neurons, "2": Neurons(theta=torch.ones(4, 16, 16))}
    with pytest.raises(SpecError, match="one threshold a neuron"):
        Tunable(network, per_neuron, 4, images)
    tuning = start(rate=1.0)
    tuning.net.body.get_submodule("7").weight.data.fill_(torch.nan)
    with pytest.raises(SpecError, match="lower learning rate"):
        tuning.step()
