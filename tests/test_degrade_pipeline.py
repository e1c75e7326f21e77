import pytest
import torch

from geosr.config.degradation import DegradationSection, SensorSection
from geosr.degrade import PSF, STEPS, build_degradation, degrade
from geosr.errors import ConfigError

RGBN = ("B02", "B03", "B04", "B08")
OWN = [
    {"step": "blur", "sigma": [0.5, 2.0], "kernels": ["iso", "plateau_aniso"]},
    {"step": "resize", "factors": [0.6, 1.2], "weights": [0.3, 0.4, 0.3]},
    {"step": "noise", "sigma": [0.001, 0.002], "gray": 0.5},
    {"step": "jpeg", "quality": 90},
    {"step": "downsample", "modes": ["area", "bicubic"]},
    {"step": "sinc", "probability": 0.5},
    {"step": "photon_noise", "factor": 0.1},
    {"step": "jpeg2000", "ratio": [2, 3]},
    {"step": "quantise"},
]
SECTIONS = {
    "sensor": DegradationSection(sensor=SensorSection(shift=0.3)),
    "high_order": DegradationSection(type="high_order"),
    "steps": DegradationSection(type="steps", steps=OWN),
    "sensor step": DegradationSection(type="steps", steps=[{"step": "sensor", "shift": 0.2, "misregistration": 0.1}]),
}
every_kind = pytest.mark.parametrize("section", SECTIONS.values(), ids=SECTIONS)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def images(batch, side=48, dtype=torch.float32):
    return (torch.rand(batch, 4, side, side, generator=seeded(9), dtype=torch.float64) * 0.4).to(dtype)


def build(section, scale=4, bands=RGBN):
    return build_degradation(section, scale=scale, bands=bands)


def same(first, second, atol=0.0):
    torch.testing.assert_close(first[0], second[0], atol=atol, rtol=0)
    assert first[1].keys() == second[1].keys()
    for name, value in first[1].items():
        torch.testing.assert_close(value, second[1][name], atol=atol, rtol=0, equal_nan=True)


@every_kind
def test_the_same_seed_gives_the_same_result_and_another_another(section):
    degradation, hr = build(section), images(3)
    same(degradation(hr, generator=seeded(4)), degradation(hr, generator=seeded(4)))
    assert not torch.equal(degradation(hr, generator=seeded(4))[0], degradation(hr, generator=seeded(5))[0])


@every_kind
def test_a_second_batch_is_degraded_in_another_way(section):
    degradation, hr, generator = build(section), images(2), seeded()
    assert not torch.equal(degradation(hr, generator=generator)[0], degradation(hr, generator=generator)[0])


@every_kind
@pytest.mark.parametrize("mates", [1, 2, 5])
def test_an_image_does_not_depend_on_its_batch_mates(section, mates):
    degradation, hr = build(section), images(6)
    lr, told = degradation(hr, generator=seeded())
    others = torch.cat([hr[:mates], torch.rand(3, 4, 48, 48)])
    again, told_again = degradation(others, generator=seeded())
    torch.testing.assert_close(lr[:mates], again[:mates], atol=1e-6, rtol=0)
    for name, value in told.items():
        if name in told_again:
            torch.testing.assert_close(value[:mates], told_again[name][:mates], atol=0, rtol=0, equal_nan=True)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_floating_types_come_back_as_they_went_in(section, dtype):
    hr = images(2, dtype=dtype)
    lr, _ = build(section)(hr, generator=seeded())
    assert lr.dtype == dtype
    exact, _ = build(section)(hr.double(), generator=seeded())
    # a coefficient or a digital number half-way between two steps may fall to either side
    allowed = {torch.float16: 3e-4, torch.bfloat16: 2e-3}.get(dtype, 1e-4)
    assert (lr.double() - exact).abs().mean() < allowed


@every_kind
def test_low_precision_around_it_changes_nothing(section):
    hr = images(2)
    expected = build(section)(hr, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        same(build(section)(hr, generator=seeded()), expected)


@every_kind
def test_the_image_that_is_given_stays_as_it_is(section):
    hr = images(2)
    build(section)(hr, generator=seeded())
    assert torch.equal(hr, images(2))


@every_kind
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same_result(section):
    hr = images(4)
    expected, told = build(section)(hr, generator=seeded())
    found, told_there = build(section)(hr.cuda(), generator=seeded())
    assert found.is_cuda
    difference = (found.cpu() - expected).abs()
    # Rounding to a digital number (1e-4) or to a coefficient may fall to the other side here and there.
    assert difference.mean() < 1e-5
    assert difference.quantile(0.999) < 1.1e-4
    assert told.keys() == told_there.keys()


def test_the_shipped_settings_are_the_point_spread_function_alone():
    from geosr.config import load_config

    for name in ("config_20m.yaml", "config_10m.yaml", "config_demo.yaml"):
        config = load_config(name)
        scale, hr = config.Generator.scaling_factor, images(2)
        lr, _ = build(config.Degradation, scale)(hr, generator=seeded())
        torch.testing.assert_close(lr, degrade(hr, PSF(scale, 0.3)), atol=5e-7, rtol=0)


def test_steps_tell_what_they_drew_by_position_and_name():
    _, told = build(SECTIONS["steps"])(images(3), generator=seeded())
    assert told["0.blur.sigma"].shape == (3, 2)
    assert told["7.jpeg2000.ratio"].shape == (3,)
    assert 0.001 <= told["2.noise.sigma"].min() <= told["2.noise.sigma"].max() <= 0.002


def test_any_number_of_bands():
    for bands in (["B04"], [f"B{n:02}" for n in range(1, 13)]):
        hr = torch.rand(2, len(bands), 32, 32)
        for section in (SECTIONS["sensor"], SECTIONS["high_order"]):
            assert build(section, 2, bands)(hr, generator=seeded())[0].shape == (2, len(bands), 16, 16)


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([{"step": "blurr"}], r"step 'blurr' is unknown \(sensor blur .*\); did you mean 'blur'\?"),
        ([{"sigma": 3}], r"step 'None' is unknown"),
        (
            [{"step": "blur", "sigmas": 3}],
            r"'sigmas' is no setting of blur \(sigma kernels .*\); did you mean 'sigma'\?",
        ),
        ([{"step": "blur", "draws": 3}], r"'draws' is no setting of blur"),
        ([{"step": "downsample", "target": [1, 1]}], r"'target' is no setting of downsample \(modes\)"),
        ([{"step": "noise"}], r"noise needs sigma"),
    ],
)
def test_a_step_that_cannot_be_is_refused(steps, told):
    with pytest.raises(ConfigError, match=told):
        build(DegradationSection(type="steps", steps=steps))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match=r"Degradation\.type is 'sensr'; allowed is sensor, high_order, steps"):
        build(DegradationSection(type="sensr"))


@pytest.mark.parametrize(
    "steps", [[], [{"step": "blur"}], [{"step": "downsample"}, {"step": "resize", "factors": [2, 3]}]]
)
def test_steps_that_do_not_end_on_the_lr_grid_are_refused(steps):
    with pytest.raises(
        ConfigError, match=r"64 x 64 pixels into \d+ x \d+, not into 16 x 16; end with .step: downsample"
    ):
        build(DegradationSection(type="steps", steps=steps))


def test_steps_on_the_lr_grid_may_be_on_it_again():
    twice = build(DegradationSection(type="steps", steps=[{"step": "downsample"}] * 2))
    assert twice(images(1), generator=seeded())[0].shape[-1] == 12


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({"step": "blur", "kernels": ["isso"]}, r"'isso' is none of iso, aniso, .*; did you mean 'iso'\?"),
        ({"step": "downsample", "modes": ["bicubi"]}, r"'bicubi' is none of area, .*; did you mean 'bicubic'\?"),
        ({"step": "noise", "sigma": "much"}, r"Degradation\.steps: "),
        ({"step": "blur", "sigma": [1, 2, 3]}, r"Degradation\.steps: too many values"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_the_first_batch(step, told):
    with pytest.raises(ConfigError, match=told):
        build(DegradationSection(type="steps", steps=[step, {"step": "downsample"}]))


@every_kind
def test_an_image_that_does_not_fit_is_refused(section):
    with pytest.raises(ValueError, match=r"hr has 3 bands; this degradation is for 4 \(B02 B03 B04 B08\)"):
        build(section)(images(1)[:, :3], generator=seeded())
    with pytest.raises(ValueError, match=r"48 x 47 pixels does not divide by the scale 4"):
        build(section)(images(1)[..., :47], generator=seeded())


@pytest.mark.parametrize("name", STEPS)
def test_every_step_says_what_it_does(name):
    assert STEPS[name].__doc__
