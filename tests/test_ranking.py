"""The table of methods: which runs in which order, read at every T, marked by a test; windows; costs; staircases."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from explorer.engine import SimulationSpec, methods
from explorer.engine.analysis import window_hits
from explorer.engine.methods.fitted import read_out
from explorer.engine.methods.names import NAMES
from explorer.limits import limits
from explorer.plots.membrane import DrawnMembrane, current_figure, membrane_figure
from explorer.study import catalogue, library, measure, published, ranking
from explorer.study.results import Result
from explorer.study.settings import Settings
from explorer.study.statistics import mcnemar
from explorer.zoo import data
from tests.test_methods import IMAGES, TRAINING, traced

T = 6


@pytest.fixture(scope="module")
def plain():
    return traced()


def fitted(key, network, **options):
    return methods.get(key)(**options).fit(network, T, TRAINING)


# Windows


def test_windows_are_means_of_the_currents_between():
    generator = torch.Generator().manual_seed(0)
    currents = torch.randn(5, 40, 3, generator=generator, dtype=torch.float64)
    labels = torch.randint(0, 3, (40,), generator=generator)
    logits = currents.cumsum(0) / torch.arange(1, 6)[:, None, None]
    hits = window_hits(logits, labels)
    for i in range(5):
        for j in range(1, 6):
            told = 0 if j <= i else int((currents[i:j].mean(0).argmax(1) == labels).sum())
            assert hits[i, j - 1] == told
    assert len(set(hits[hits > 0].tolist())) > 5


@pytest.mark.parametrize(("skipped", "left_out"), [(0, 0), (1, 1), (2, 2), (9, 2)])
def test_a_conversions_own_window_is_what_its_read_out_gives(plain, skipped, left_out):
    conversion = replace(fitted("opi", plain), skipped=skipped)
    assert conversion.left_out == left_out
    raw = replace(conversion, skipped=0).scores(IMAGES).double() * torch.arange(1, T + 1)[:, None, None]
    before = raw[left_out - 1] if left_out else 0
    expected = (raw[-1] - before) / (T - left_out)
    assert torch.allclose(conversion.scores(IMAGES)[-1].double(), expected, atol=1e-5)
    assert torch.equal(read_out((raw / torch.arange(1, T + 1)[:, None, None]).float(), 0)[0].double(), raw[0])


def test_the_windows_of_a_setting_hold_its_accuracy():
    settings = Settings(images=16, T=4)
    found = measure.windows(settings, 0, 16)
    curve = measure.Engine().advance(settings, 0, 16, lambda: False, lambda: False)
    assert found.images == 16 and found.ann_hits == curve.ann_hits and found.begin == 0
    assert np.array_equal(found.hits[0], curve.hits) and (np.tril(found.hits, -1) == 0).all()
    whole = measure.windows(settings, 0, 4).joined(measure.windows(settings, 4, 16))
    assert np.array_equal(whole.hits, found.hits) and (whole.images, whole.ann_hits) == (16, found.ann_hits)
    with pytest.raises(Exception, match="Radix coding: each neuron sends one code"):
        measure.windows(replace(settings, method="radix"), 0, 16)


# Which runs, and how they are read


def test_runs_are_each_asked_for_once_and_what_is_cheap_first():
    assert (
        ranking.durations(1) == (1,) and ranking.durations(8) == (1, 2, 4, 8) and ranking.durations(6) == (1, 2, 4, 6)
    )
    steps = ranking.durations(8)
    listed = ranking.entries(Settings(T=8, v_init=0.3, scale=0.9), 32)
    assert [entry.method for entry in listed] == [*NAMES, ""] and listed[-1].yours
    assert listed[-1].settings.scale == 0.9 and listed[0].settings.scale == 1.0
    once, by_T, long = ranking.stages(listed, steps)
    assert all(not run.depends_on_T and run.T == 8 for run in once) and Settings().images != 32 == once[0].images
    per_T = {key for key, named in NAMES.items() if not named.anytime and not named.long}
    assert {run.method for run in by_T} == per_T > {"optimal-shift", "radix"}
    assert [run.T for run in by_T] == sorted(run.T for run in by_T) and len(by_T) == len(per_T) * len(steps)
    assert {run.method for run in long} == {key for key, named in NAMES.items() if named.long}
    assert [run.depends_on_T for run in long] == sorted(run.depends_on_T for run in long) and not long[0].depends_on_T
    assert len({*once, *by_T, *long}) == len(once) + len(by_T) + len(long)
    assert not any(entry.yours for entry in ranking.entries(Settings(T=8, method="cos"), 32))


def test_each_method_has_three_starts_and_its_own_is_among_them():
    starts = {
        three[1].method: [entry.settings.method for entry in three] for three in ranking.start_entries(Settings(), 16)
    }
    assert list(starts) == list(NAMES)
    assert starts["cos"] == ["cos:v_init=0", "cos", "cos"]
    assert starts["max-norm"] == ["max-norm", "max-norm", "max-norm:v_init=0.5"]


def result(steps, right, **more):
    right = np.array(right, bool)
    return Result(
        steps, right, right[:, -1], {"a": np.full(len(right), 8)}, {"a": 4}, seconds=np.ones(len(right)), **more
    )


def test_a_method_is_read_at_every_T_from_one_run_and_costs_are_those_of_its_end():
    listed = [entry for entry in ranking.entries(Settings(T=4, method="cos"), 16) if entry.method in ("cos", "radix")]
    cos, radix = listed
    results = {
        cos.run(1): result(4, [[0, 1, 1, 1], [1, 1, 1, 0]], extra=4, additions=12.0, added_images=2),
        radix.run(2): result(2, [[0, 1], [0, 1], [0, 0]], answers_from=2, bits=1, extra=4),
    }
    n = ranking.sample(listed, (1, 2, 4), results)
    assert n == 2, "a run that knows more does not count"
    rows = ranking.read(listed, (1, 2, 4), results, {radix.run(4): "no"}, n)
    assert [rows[0].points[t].top1 for t in (1, 2, 4)] == [0.5, 1.0, 0.5]
    assert [rows[0].points[t].latency for t in (1, 2, 4)] == [5, 6, 8]
    assert rows[0].points[4].additions == 12.0 and rows[0].points[2].additions is None
    assert rows[0].points[4].spikes_per_neuron == 2.0 and rows[0].points[1].spikes_per_neuron is None
    assert list(rows[1].points) == [2] and rows[1].points[2].top1 == 1.0 and rows[1].refused == {4: "no"}


def test_what_is_measured_later_joins_once_it_knows_as_many_images():
    listed = [entry for entry in ranking.entries(Settings(T=2, method="cos"), 16) if entry.method in ("cos", "ftbc")]
    cos, ftbc = listed
    results = {cos.run(2): result(2, np.ones((8, 2))), ftbc.run(2): result(2, np.ones((4, 2)))}
    assert ranking.sample(listed, (1, 2), results) == 8
    assert [list(row.points) for row in ranking.read(listed, (1, 2), results, {}, 8)] == [[1, 2], []]
    assert ranking.sample(listed, (1, 2), {}) == 0


# Marks


def point(right):
    return ranking.Point(4, 4, 1, np.array(right, bool), None, None, 0)


def test_mcnemar_is_the_exact_binomial_test():
    for b, c in [(0, 0), (1, 0), (5, 1), (3, 3), (2, 14), (30, 12)]:
        told = float(mcnemar(np.array(b), np.array(c)))
        assert told == pytest.approx(stats.binomtest(b, b + c, 0.5).pvalue if b + c else 1.0, rel=1e-9)


def test_the_best_is_marked_with_all_that_do_not_differ():
    best = np.arange(64) < 50
    near, far = np.arange(64) < 47, np.arange(64) < 30
    assert ranking.leaders([point(far), point(best), None, point(near), point(best)]) == [
        False,
        True,
        False,
        True,
        True,
    ]
    assert ranking.leaders([None, None]) == [False, False]
    assert ranking.leaders([None, point(best)]) == [False, False], "nothing to compare it with yet"
    few = [np.arange(4) < 4, np.arange(4) < 1]
    assert ranking.leaders([point(one) for one in few]) == [True, True], "four images tell nothing"
    gain = ranking.gain(point(far), point(best))
    assert gain.difference == 20 / 64 and gain.lost == 0 and gain.p < 1e-4 and gain.low > 0


# Costs


def test_additions_are_counted_on_the_first_images(plain):
    conversion = fitted("cos", plain)
    spec = SimulationSpec(T)
    told = measure.score(conversion, IMAGES, None, spec, additions=True)
    assert told.added_images == 5 and told.additions == pytest.approx(float(conversion.run(IMAGES).added.mean()))
    assert told.additions > 0
    bare = measure.score(conversion, IMAGES, None, spec)
    assert bare.added_images == 0
    assert told.joined(bare).additions == told.additions and told.joined(bare).first(5).added_images == 5
    assert told.first(3).added_images == 0


# One staircase a site, where there is one


@pytest.mark.parametrize(
    ("key", "start"),
    [("max-norm", 0.0), ("opi", 0.5), ("optimal-shift", 0.5), ("parallel", 0.5), ("first-spike", 0.5), ("signed", 0.0)],
)
def test_the_first_site_follows_the_staircase_that_is_drawn(plain, key, start):
    """Its input is constant, so its count must be the staircase's, whatever else the method does."""
    conversion, site = fitted(key, plain), plain.sites[0]
    told = measure.stairs(conversion)
    assert told == pytest.approx({each.name: start for each in plain.sites})
    share = (
        T * plain.activations(IMAGES)[site.name].double() / conversion.snn.theta[site.name].double() + told[site.name]
    )
    sure = (share - share.round()).abs() > 1e-3
    n = conversion.watch(IMAGES).sent(site.name)
    assert torch.allclose(n[sure], share.floor().clamp(0, T)[sure], atol=1e-6) and n.max() >= 2


@pytest.mark.parametrize("key", ["srp", "cos", "radix", "ftbc", "scaled", "burst"])
def test_where_there_is_no_one_staircase_none_is_drawn(plain, key):
    assert measure.stairs(fitted(key, plain)) == {}


def test_added_biases_have_no_one_staircase_and_are_in_what_the_lab_draws(plain):
    conversion, site = fitted("parallel", plain, biases=True), plain.sites[1].name
    assert conversion.after and measure.stairs(conversion) == {}
    seen = conversion.watch(IMAGES[:1])
    worth = seen.error_parts(site)
    for neuron in range(0, plain.site(site).neurons, 7):
        decoded = seen.membrane(site, neuron).decoded[-1]
        assert float(decoded) == pytest.approx(float(worth.a_hat.flatten()[neuron]), abs=1e-5)


@pytest.mark.parametrize("key", ["opi", "signed", "burst", "differential", "opi:law=thresholds_3"])
def test_the_players_equation_holds_at_every_step(plain, key):
    """v_before is the potential held, stretched where a law says so, and the current; what fires is at the level."""
    fires = 0
    conversion = methods.parse(key).fit(plain, T, IMAGES)
    for site in plain.sites:
        for neuron in range(0, site.neurons, max(1, site.neurons // 6)):
            got = conversion.watch(IMAGES[:1]).membrane(site.name, neuron)
            assert got.stretches == (key == "differential") and got.sized == (got.fires_at < 1)
            held = got.v0
            for t in range(T):
                if t and got.stretches:
                    held = got.v0 + (t + 1) / t * (held - got.v0)
                assert held + float(got.x[t]) == pytest.approx(float(got.v_before[t]), abs=1e-4 * got.theta)
                level = got.fires_at * got.theta
                if abs(float(got.v_before[t]) - level) > 1e-5 * level:
                    assert (got.z[t] > 0) == (got.v_before[t] > level)
                fires += int(got.z[t] != 0)
                held = float(got.v[t])
    assert fires > 5


# The lab


def watched(key, network, site, neuron, **options):
    return fitted(key, network, **options).watch(IMAGES[:1]).membrane(site, neuron)


def drawn_of(key, network, which=lambda got: True, **options):
    """Return the first neuron of the last site but one of which something holds."""
    site = network.sites[1]
    for neuron in range(site.neurons):
        got = watched(key, network, site.name, neuron, **options)
        if which(got):
            return got, DrawnMembrane.of("yours", got)
    raise AssertionError(f"no such neuron under {key}")


def named(figure, start):
    return next(trace for trace in figure.data if trace["name"].startswith(start))


def test_the_lab_draws_a_muted_neuron_hollow_and_its_first_phase_before_the_run(plain):
    got, shown = drawn_of("srp", plain, lambda got: got.muted and got.z.any())
    figure = membrane_figure([shown])
    marks = named(figure, "muted: fired, not sent")
    assert marks["marker"]["symbol"] == "circle-open" and len(marks["x"]) == int((got.z > 0).sum())
    assert not shown.decoded.any()
    before = named(figure, "yours: first phase")
    assert before["x"][0] == -4 and before["x"][-1] == 0 and before["y"][-1] == np.float32(got.before.v[-1])
    assert figure.layout["shapes"][0]["x0"] == -4 and figure.layout["annotations"][0]["text"] == "first phase"
    assert list(named(current_figure([shown]), "yours: first phase")["x"]) == [-3, -2, -1, 0]


def test_the_lab_marks_a_start_that_was_moved(plain):
    got, shown = drawn_of("cos", plain, lambda got: abs(got.v0 - got.before.v0) > 1e-3)
    mark = named(membrane_figure([shown]), "v(0) moved to")
    assert mark["y"] == [got.v0] and mark["x"] == [0]
    assert float(got.x[0] + got.v0) == pytest.approx(float(got.v_before[0]), abs=1e-5)


def test_the_lab_shades_what_is_not_read_and_decodes_codes_by_what_they_stand_for(plain):
    got, shown = drawn_of("local-balancing", plain, batch=5, updates=5)
    shaded = membrane_figure([replace(shown, skipped=2)]).layout
    assert shaded["shapes"][0]["x1"] == 2.5 and shaded["annotations"][0]["text"] == "not read out"
    assert shown.skipped == fitted("local-balancing", plain, batch=5, updates=5).left_out
    got, shown = drawn_of("radix", plain, lambda got: got.z.sum() >= 2)
    worth = got.theta / 2.0 ** torch.arange(1, T + 1)
    assert np.allclose(shown.decoded, (worth * got.z).cumsum(0).numpy(), atol=1e-5) and shown.sends_later
    assert not np.allclose(shown.decoded, got.theta * np.cumsum(got.z) / np.arange(1, T + 1))


def test_published_figures_stand_beside_networks_of_their_family_on_cifar10_alone():
    assert {one.method for one in published.beside("vgg16-clip", "CIFAR-10")} > {"opi", "rmp"}
    assert not published.beside("vgg16-clip", "") and not published.beside("timm:vgg16.tv", "CIFAR-10")
    opi = next(one for one in published.PUBLISHED if one.network == "vgg16")
    assert opi.is_checked(16) and not opi.is_checked(8)
    assert published.named(opi) == "Bu et al. 2022, VGG-16 (ANN 94.57)"


def test_ours_on_all_test_images_are_those_of_the_cards_with_their_intervals():
    found = {own.network: own for own in published.ours("resnet20-relu", "CIFAR-10")}
    tuned = {name for name, own in found.items() if own.tuned}
    assert tuned == {"resnet20-hybrid4", "resnet20-hybrid8", "resnet20-qcfs-hybrid"}
    assert {own.network: own.tuned for own in published.ours("vgg16-clip", "CIFAR-10")} == {
        "vgg16-clip": False,
        "vgg16-hybrid": True,
    }
    assert not published.ours("resnet20-relu", "")
    assert set(found) - tuned == {"resnet20-clip", "resnet20-qcfs"}
    for name, own in found.items():
        card = catalogue.card(name)
        assert own.method == {"clip": "opi", "qcfs": "qcfs"}[card["recipe"]["activation"]] and own.images == 10_000
        for T, share in card["top1_after"].items():
            low, high = own.interval(int(T))
            assert own.top1[int(T)] == pytest.approx(100 * share)
            exact = stats.binomtest(round(share * 10_000), 10_000).proportion_ci(method="wilson")
            assert (low, high) == pytest.approx((100 * exact.low, 100 * exact.high))


def test_a_figure_is_reproduced_by_one_scene_where_such_a_network_is_shipped():
    opi = next(one for one in published.PUBLISHED if (one.method, one.network) == ("opi", "vgg16"))
    scene = published.reproduction(opi, 16, "embedded", "auto")
    assert scene is not None and scene.display.published
    now = scene.settings
    assert (now.network, now.method, now.T, now.rule, now.images) == ("vgg16-clip", "opi", 16, "clip", 2_000)
    whole = published.reproduction(opi, 16, "/data", "cpu")
    assert whole is not None and whole.settings.images == min(10_000, limits().images)
    assert whole.settings.source == "/data" and whole.settings.device == "cpu"
    assert published.reproduction(replace(opi, method="qcfs", network="other"), 8, "embedded", "auto") is None


def test_only_the_test_set_itself_counts_as_cifar10(tmp_path, monkeypatch):
    assert library.dataset("embedded") == "CIFAR-10"
    assert library.dataset(str(tmp_path)) == "" and library.dataset(str(tmp_path / "missing")) == ""
    known = data.embedded()
    images, labels = np.asarray(known.images), known.labels
    held = [np.concatenate([images] * 5), np.concatenate([labels] * 5)]
    monkeypatch.setattr(data, "load_split", lambda root, train: tuple(held))
    (tmp_path / "test_batch.png").touch()
    assert library.dataset(str(tmp_path)) == "CIFAR-10"
    held[:] = [held[0][:9_000], held[1][:9_000]]
    assert library.dataset(str(tmp_path)) == "", "images are missing"
    held[:] = [np.concatenate([images[::-1]] * 5), np.concatenate([labels[::-1]] * 5)]
    assert library.dataset(str(tmp_path)) == "", "another order"
