import numpy as np
import pytest
import torch

from geosr.losses import feature_matching


def features(seed):
    draws = np.random.default_rng(seed)
    return [draws.normal(size=shape).astype(np.float32) for shape in ((2, 3, 8, 7), (2, 6, 4, 3), (2, 1, 2, 2))]


def tensors(arrays):
    return [torch.from_numpy(array) for array in arrays]


def test_it_is_the_mean_over_layers_of_the_mean_absolute_difference():
    sr, hr = features(0), features(1)
    expected = np.mean([np.abs(ours - theirs).mean(dtype=np.float64) for ours, theirs in zip(sr, hr, strict=True)])
    assert feature_matching(tensors(sr), tensors(hr)).item() == pytest.approx(expected, rel=1e-6)
    assert feature_matching(tensors(hr), tensors(sr)).item() == pytest.approx(expected, rel=1e-6)
    assert feature_matching(tensors(sr), tensors(sr)).item() == 0


def test_its_gradient_is_the_sign_of_the_difference_over_the_sizes():
    sr, hr = features(0), features(1)
    leaves = [leaf.requires_grad_() for leaf in tensors(sr)]
    feature_matching(leaves, tensors(hr)).backward()
    for leaf, ours, theirs in zip(leaves, sr, hr, strict=True):
        np.testing.assert_allclose(leaf.grad, np.sign(ours - theirs) / ours.size / 3, rtol=1e-6)


def test_differences_of_bfloat16_features_are_summed_in_float32():
    sr, hr = ([value.bfloat16() for value in tensors(features(seed))] for seed in (0, 1))
    value = feature_matching(sr, hr)
    assert value.dtype == torch.float32
    assert value == feature_matching([one.float() for one in sr], [one.float() for one in hr])


def test_a_layer_that_only_one_has_is_an_error():
    with pytest.raises(ValueError, match="argument 2"):
        feature_matching(tensors(features(0)), tensors(features(1))[:2])
