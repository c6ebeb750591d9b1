"""All attacks on the decoder that a user received, with their strength grids, mildest first.

All act on its effective weights. Under weight normalisation, noise on ``weight_v`` or pruning of ``weight_g`` would be
another attack than the one its name promises, so everything goes through ``bench.weights``. Results keep the state-dict
keys; the input stays as it is.
"""

from __future__ import annotations

from attacks.grids import Card, Grid, weights_family
from attacks.model_invariance import ChannelPermutation, ChannelRescaling
from attacks.model_lora import LoRAFineTune
from attacks.model_noise import AbsoluteWeightNoise, WeightNoise
from attacks.model_overwrite import Overwrite
from attacks.model_precision import FloatPrecision, WeightQuantization
from attacks.model_pruning import ChannelPruning, MagnitudePruning, RandomPruning, SVDTruncation
from attacks.model_structure import Bypass, DecoderSwap, Distillation, Interpolation, LayerReset, VocoderSwap
from attacks.model_training import BlindPurification, FineTune, NoisePurification, Purification

__all__ = [
    "FAMILIES",
    "AbsoluteWeightNoise",
    "BlindPurification",
    "Bypass",
    "ChannelPermutation",
    "ChannelPruning",
    "ChannelRescaling",
    "DecoderSwap",
    "Distillation",
    "FineTune",
    "FloatPrecision",
    "Interpolation",
    "LayerReset",
    "LoRAFineTune",
    "MagnitudePruning",
    "NoisePurification",
    "Overwrite",
    "Purification",
    "RandomPruning",
    "SVDTruncation",
    "VocoderSwap",
    "WeightNoise",
    "WeightQuantization",
]

FI_LORA = "own grid; std .02 and .05 as in FI-LoRA, ICCV 2025"
KRISHNAMOORTHI = "Krishnamoorthi 2018, arXiv:1806.08342"
HAN = "Han et al. 2015, arXiv:1506.02626"
HU = "Stable Signature, arXiv:2303.15435; Hu et al. 2024, arXiv:2405.07145"
LUKAS = "Lukas et al. 2022, arXiv:2108.04974"
INVARIANT = "arXiv:2606.12977"
PUBLIC = "the public decoder"
PAIRS = "clean content and the public encoder"
STEPS = Grid((10, 30, 100, 300, 1000), 0, "steps")

FAMILIES = (
    weights_family(
        "weight-noise",
        WeightNoise,
        Grid((0.01, 0.02, 0.05, 0.1, 0.2, 0.5), 3, "std over each tensor's own"),
        Card("Adds white noise to all parameters, in proportion to each tensor's spread.", "own grid"),
    ),
    weights_family(
        "weight-quantization",
        lambda s: WeightQuantization(int(s)),
        Grid((8, 6, 4, 2), 2, "bits"),
        Card("Rounds the weights to few levels, one range for each layer, as small devices need it.", KRISHNAMOORTHI),
    ),
    weights_family(
        "magnitude-pruning",
        MagnitudePruning,
        Grid((0.1, 0.2, 0.3, 0.5, 0.7), 2, "share of each layer's weights"),
        Card("Sets the smallest weights to zero, as model compression does.", HAN),
    ),
    weights_family(
        "fine-tune",
        lambda s: FineTune(int(s)),
        STEPS,
        Card("Trains the decoder further on clean content that the public encoder encoded.", HU, PAIRS),
        standard=(10, 30),  # 100 steps of a waveform decoder take ten minutes a user, as in suite all
    ),
    weights_family(
        "weight-noise-kernels",
        lambda s: WeightNoise(s, kernels_only=True),
        Grid((0.01, 0.02, 0.05, 0.1, 0.2, 0.5), 3, "std over each tensor's own"),
        Card("Adds white noise to the kernels and leaves biases and norms alone.", "own grid"),
        standard=(),
    ),
    weights_family(
        "absolute-weight-noise",
        AbsoluteWeightNoise,
        Grid((0.005, 0.01, 0.02, 0.05), 2, "std"),
        Card("Adds white noise of one standard deviation to all parameters, whatever their spread.", FI_LORA),
        standard=(),
    ),
    weights_family(
        "absolute-weight-noise-kernels",
        lambda s: AbsoluteWeightNoise(s, kernels_only=True),
        Grid((0.005, 0.01, 0.02, 0.05), 2, "std"),
        Card("Adds white noise of one standard deviation to the kernels.", FI_LORA),
        standard=(),
    ),
    weights_family(
        "float-precision",
        lambda s: FloatPrecision(int(s)),
        Grid((10, 7, 3, 2), 1, "bits of the mantissa: fp16, bf16, fp8 e4m3, fp8 e5m2"),
        Card("Stores the decoder in a shorter float format, as everybody does to save memory.", "arXiv:2209.05433"),
        standard=(7, 2),
    ),
    weights_family(
        "weight-quantization-channels",
        lambda s: WeightQuantization(int(s), per_channel=True),
        Grid((8, 6, 4, 3, 2), 2, "bits"),
        Card("Rounds the weights to few levels, one range for each output channel.", KRISHNAMOORTHI),
        standard=(4, 2),
    ),
    weights_family(
        "random-pruning",
        RandomPruning,
        Grid((0.01, 0.05, 0.1, 0.2, 0.5), 2, "share of each layer's weights"),
        Card("Sets weights to zero at random.", "Blalock et al. 2020, arXiv:2003.03033"),
        standard=(0.05, 0.2),
    ),
    weights_family(
        "channel-pruning",
        ChannelPruning,
        Grid((0.05, 0.1, 0.2, 0.3, 0.5), 1, "share of each layer's output channels"),
        Card("Sets whole output channels to zero, the smallest first.", "Li et al. 2017, arXiv:1608.08710"),
        standard=(0.1, 0.3),
    ),
    weights_family(
        "svd-truncation",
        SVDTruncation,
        Grid((0.9, 0.75, 0.5, 0.25, 0.1), 2, "share of the singular values kept"),
        Card("Keeps the largest singular values of each weight.", "Denton et al. 2014, arXiv:1404.0736"),
        standard=(0.75, 0.5),
    ),
    weights_family(
        "interpolation",
        Interpolation,
        Grid((0.1, 0.25, 0.5, 0.75, 1.25, 1.5, 2.0), 2, "share of the way to the public decoder"),
        Card("Moves the weights towards the public decoder, or beyond it.", "arXiv:2109.01903, 2212.04089", PUBLIC),
        standard=(0.25, 0.5, 0.75, 1.5),
    ),
    weights_family(
        "lora-fine-tune",
        lambda s: LoRAFineTune(int(s)),
        STEPS,
        Card("Fine-tunes low-rank changes on clean content and merges them.", "arXiv:2106.09685", PAIRS),
        standard=(),
    ),
    weights_family(
        "purification",
        lambda s: Purification(int(s)),
        STEPS,
        Card("Trains the decoder towards the public decoder's output.", HU, f"{PUBLIC} and latents"),
        standard=(),
    ),
    weights_family(
        "blind-purification",
        lambda s: BlindPurification(int(s)),
        STEPS,
        Card("Estimates latents of clean content through the decoder, then trains on the pairs.", HU, "clean content"),
        standard=(),
    ),
    weights_family(
        "noise-purification",
        NoisePurification,
        Grid((0.05, 0.1, 0.2, 0.5), 2, "std over each tensor's own, then 100 steps"),
        Card("Shakes the weights, then trains the damage away.", "arXiv:2310.16919", f"{PUBLIC} and latents"),
        standard=(),
    ),
    weights_family(
        "distillation",
        lambda s: Distillation(int(s)),
        Grid((3000, 1000, 300, 100), 1, "steps, from fresh weights"),
        Card("Trains a fresh decoder on what the user's puts out.", f"arXiv:1503.02531; {LUKAS}", "latents"),
        standard=(),
    ),
    weights_family(
        "layer-reset",
        LayerReset,
        Grid((0.05, 0.1, 0.2, 0.4), 1, "share of the layers"),
        Card("Draws the weights of some layers anew.", LUKAS),
        standard=(0.1,),
    ),
    weights_family(
        "channel-permutation",
        ChannelPermutation,
        Grid((0.25, 0.5, 0.75, 1.0), 3, "share of the chains of layers"),
        Card("Permutes channels between layers; the function stays.", INVARIANT, "the decoder's code"),
        standard=(),
    ),
    weights_family(
        "channel-rescaling",
        ChannelRescaling,
        Grid((1.1, 1.5, 2.0, 4.0), 2, "largest factor"),
        Card("Scales channels and scales them back; the function stays.", f"arXiv:1703.04933, {INVARIANT}", "its code"),
        standard=(),
    ),
    weights_family(
        "bypass",
        lambda s: Bypass(int(s)),
        Grid((1,), 0, "1: the stage is dropped"),
        Card("Loads the user's weights into the public code, which has no stage that marks.", "own", "the public code"),
        standard=(1,),
    ),
)
