"""A run made small: every part of it works, none of it for long."""

from copy import deepcopy

from geosr.config.schema import Config

STEPS, EVERY = 16, 8
"""Updates of a debug run, and from one validation to the next."""


def shrunk(config: Config) -> Config:
    """The configuration with small networks and batches and every phase within 16 updates; nothing gets larger."""
    small = deepcopy(config)
    data, training, generator = small.Data, small.Training, small.Generator
    data.train_batch_size, data.val_batch_size = min(data.train_batch_size, 2), min(data.val_batch_size, 2)
    data.val_patches, data.num_workers = min(data.val_patches, 4), 0
    generator.n_channels, generator.n_blocks = min(generator.n_channels, 16), min(generator.n_blocks, 2)
    generator.growth_channels = min(generator.growth_channels, 8)
    small.Discriminator.base_channels = min(small.Discriminator.base_channels, 8)
    small.Discriminator.linear_size = min(small.Discriminator.linear_size, 16)
    small.Degradation.queue_size = min(small.Degradation.queue_size, 4)
    training.max_steps, training.val_every, training.max_epochs = STEPS, EVERY, None
    training.limit_val_batches = min(training.limit_val_batches or 2, 2)
    training.adv_loss_ramp_steps = min(training.adv_loss_ramp_steps, 4)
    if training.g_pretrain_steps > 0:
        training.g_pretrain_steps = min(training.g_pretrain_steps, 4)
    small.Schedulers.g_warmup_steps = min(small.Schedulers.g_warmup_steps, 4)
    small.Logging.every, small.Logging.num_val_images = 1, min(small.Logging.num_val_images, 2)
    return small
