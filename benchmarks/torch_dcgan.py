"""The peer: the same DCGAN in PyTorch, trained by the same rules, written for speed.

Modes:
    eager            as in PyTorch's own example
    channels_last    the memory format that convolutions prefer on most devices, and fused Adam
    compiled         both networks by torch.compile with fixed shapes, and fused Adam
    compiled_last    the two together
    cuda_graphs      the same, with each compiled network captured as a CUDA graph

In all of them cuDNN chooses its fastest algorithms, the generator's update computes no gradients of the discriminator's
weights, and bfloat16 is torch.autocast. A moving average is kept if the configuration has one. Not supported: labels,
hidden dense layers, and one gain per unit after the projection (gains are per feature).
"""

import jax
import measure
import numpy as np
import torch
from ml_collections import ConfigDict
from torch import nn

from dcgan_jax.config import layers
from dcgan_jax.ops.conv import padding

# Both networks in several modes are many versions of the same code; beyond a limit PyTorch runs them uncompiled.
torch._dynamo.config.recompile_limit = 100
# The CPU if JAX has no GPU: both must run on the same device.
DEVICE = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
MODES = ("eager", "channels_last", "compiled", "compiled_last", *(["cuda_graphs"] if DEVICE == "cuda" else []))


def set_precision(name: str) -> None:
    """Sets how float32 is multiplied on a GPU, as for JAX; name: one of `measure.PRECISIONS`."""
    _, products, convolutions = measure.PRECISIONS[name]
    torch.backends.cudnn.benchmark = True
    if DEVICE == "cuda":
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions


def generator(config: ConfigDict) -> nn.Module:
    """z [B, latent_dim] to images [B, C, H, W]."""
    features, strides = layers(config)
    step = int(np.prod(strides))
    first = (features[-1], config.image_size[0] // step, config.image_size[1] // step)
    parts = [nn.Linear(config.latent_dim, int(np.prod(first)), bias=False), nn.Unflatten(1, first)]
    parts += [_norm(config, first[0]), nn.ReLU(True)]
    widths = [*features[::-1], config.channels]
    for before, after, stride in zip(widths[:-1], widths[1:], strides[::-1], strict=True):
        pad = padding(config.kernel_size, stride)
        left_over = 2 * pad + stride - config.kernel_size
        parts.append(nn.ConvTranspose2d(before, after, config.kernel_size, stride, pad, left_over, bias=False))
        parts += [_norm(config, after), nn.ReLU(True)]
    return _initialised(nn.Sequential(*parts[:-2], nn.Tanh()))


def discriminator(config: ConfigDict) -> nn.Module:
    """Images [B, C, H, W] to logits [B, 1]."""
    features, strides = layers(config)
    parts = []
    for i, (before, after, stride) in enumerate(zip((config.channels, *features), features, strides, strict=False)):
        pad = padding(config.kernel_size, stride)
        parts.append(nn.Conv2d(before, after, config.kernel_size, stride, pad, bias=config.first_bias and i == 0))
        parts += [_norm(config, after)] if i else []
        parts.append(nn.LeakyReLU(0.2, True))
    flat = int(np.prod(config.image_size)) // int(np.prod(strides)) ** 2 * features[-1]
    return _initialised(nn.Sequential(*parts, nn.Flatten(), nn.Linear(flat, 1, bias=False)))


def _norm(config: ConfigDict, features: int) -> nn.Module:
    return nn.BatchNorm2d(features, config.norm_epsilon, 1 - config.norm_momentum)


def _initialised(network: nn.Module) -> nn.Module:
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
        elif hasattr(module, "weight"):
            nn.init.normal_(module.weight, 0.0, 0.02)
    return network


def _prepared(network: nn.Module, mode: str) -> tuple[nn.Module, nn.Module]:
    """The network on the device, and the function that runs it in this mode."""
    network = network.to(DEVICE)
    if mode in ("channels_last", "compiled_last", "cuda_graphs"):
        network = network.to(memory_format=torch.channels_last)
    if mode in ("eager", "channels_last"):
        return network, network
    # With dynamic shapes it fails on some CPUs.
    compile_mode = "reduce-overhead" if mode == "cuda_graphs" else "default"
    return network, torch.compile(network, dynamic=False, mode=compile_mode)


def one_line(error: Exception) -> str:
    """An error's type and text, short enough for a table."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def synchronize() -> None:
    """Waits until the GPU is done."""
    if DEVICE == "cuda":
        torch.cuda.synchronize()


def training(config: ConfigDict, mode: str) -> measure.Run:
    """Training steps on one batch of uint8 images on the device. The first call may raise any error of PyTorch's."""
    torch.manual_seed(0)
    generator_network, generate = _prepared(generator(config), mode)
    discriminator_network, discriminate = _prepared(discriminator(config), mode)
    average = [parameter.detach().clone() for parameter in generator_network.parameters()] if config.ema_decay else None
    adam = dict(betas=(config.b1, config.b2), weight_decay=config.l2, **({} if mode == "eager" else {"fused": True}))
    generator_adam = torch.optim.Adam(generator_network.parameters(), config.generator_lr, **adam)
    discriminator_adam = torch.optim.Adam(discriminator_network.parameters(), config.discriminator_lr, **adam)
    shape = (config.batch_size, *config.image_size, config.channels)
    batch = torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, np.uint8)).to(DEVICE).permute(0, 3, 1, 2)
    if mode in ("eager", "compiled"):
        batch = batch.contiguous()
    ones, zeros = torch.ones(config.batch_size, 1, device=DEVICE), torch.zeros(config.batch_size, 1, device=DEVICE)
    loss = nn.functional.binary_cross_entropy_with_logits

    def autocast() -> torch.autocast:
        return torch.autocast(DEVICE, torch.bfloat16, enabled=config.dtype == "bfloat16")

    def generated() -> torch.Tensor:
        z = torch.randn(config.batch_size, config.latent_dim, device=DEVICE)
        return generate(z if config.prior == "normal" else z.uniform_(-1, 1))

    def logits(images: torch.Tensor) -> torch.Tensor:
        noise = config.instance_noise
        return discriminate(images + noise * torch.randn_like(images) if noise else images).float()

    def step() -> None:
        if mode == "cuda_graphs":
            torch.compiler.cudagraph_mark_step_begin()
        with autocast():
            images_real = batch.float() / 127.5 - 1
            images_fake = generated()
            d_loss = loss(logits(images_real), ones) + loss(logits(images_fake.detach()), zeros)
        discriminator_adam.zero_grad()
        d_loss.backward()
        discriminator_adam.step()
        discriminator_network.requires_grad_(False)
        with autocast():
            if config.fresh_z:
                images_fake = generated()
            g_loss = loss(logits(images_fake), ones)
        generator_adam.zero_grad()
        g_loss.backward()
        generator_adam.step()
        discriminator_network.requires_grad_(True)
        if average:
            torch._foreach_lerp_(
                average, [parameter.detach() for parameter in generator_network.parameters()], 1 - config.ema_decay
            )

    def run(calls: int) -> None:
        for _ in range(calls):
            step()
        synchronize()

    return run


def sampling(config: ConfigDict, mode: str, count: int, chunk: int) -> measure.Run:
    """Generates `count` uint8 images on the host in chunks, as `dcgan_jax.TrainedGAN.sample` does."""
    torch.manual_seed(0)
    _, generate = _prepared(generator(config).eval(), mode)

    def run(calls: int) -> None:
        for _ in range(calls):
            parts = []
            with torch.no_grad(), torch.autocast(DEVICE, torch.bfloat16, enabled=config.dtype == "bfloat16"):
                for _ in range(0, count, chunk):
                    if mode == "cuda_graphs":
                        torch.compiler.cudagraph_mark_step_begin()
                    z = torch.randn(chunk, config.latent_dim, device=DEVICE)
                    images = generate(z if config.prior == "normal" else z.uniform_(-1, 1)).float()
                    pixels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
                    parts.append(pixels.permute(0, 2, 3, 1).cpu().numpy())
            np.concatenate(parts)[:count]

    return run


def memory() -> int | None:
    """The largest number of bytes in use on the GPU since the last call; None on a CPU."""
    if DEVICE == "cpu":
        return None
    used = torch.cuda.max_memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    return used
