"""Images for tests of losses, and what every loss keeps to."""

import torch


def case(seed=0, share=0.7, shape=(2, 3, 6, 5)):
    """SR and HR by chance, and which pixels are valid."""
    generator = torch.Generator().manual_seed(seed)
    sr, hr = torch.rand(2, *shape, generator=generator)
    return sr, hr, torch.rand(shape[0], *shape[2:], generator=generator) < share


def everywhere(image):
    return torch.ones_like(image[:, 0], dtype=torch.bool)


def assert_blind_to_invalid_pixels(loss_and_gradient, sr, hr, valid, *, stored):
    """Fail unless loss and gradient stay what they are when invalid pixels of HR, then of SR too, hold ``stored``."""
    value, gradient = loss_and_gradient(sr, hr, valid)
    for image in (hr, sr):
        image.movedim(1, -1)[~valid] = stored
        changed_value, changed_gradient = loss_and_gradient(sr, hr, valid)
        assert changed_value == value > 0
        assert torch.equal(changed_gradient, gradient)
    assert not gradient.movedim(1, -1)[~valid].any()
