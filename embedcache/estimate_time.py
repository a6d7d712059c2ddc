"""Time of a build from a short trial: batches as the build makes them, of lengths from all over the dataset."""

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from embedcache.batching import by_length, cut_by_tokens
from embedcache.encoders.registry import EncoderOptions, card, layer_specs, load_layers
from embedcache.encoders.spec import EncoderSpec
from embedcache.encoders.windows import WindowedEncoder, plan_windows, window_letters
from embedcache.plan import Plan

if TYPE_CHECKING:
    from embedcache.encoders.spec import LayeredEncoder
    from embedcache.job import BuildJob

__all__ = ["Trial", "Windows", "count_windows", "drawn_options", "time_batches", "try_out"]

MOST_BATCHES = 64
Numbers = NDArray[np.int64]


class Windows(NamedTuple):
    """How each sequence passes through the network: ``passes`` times with so many ``tokens`` each."""

    passes: Numbers
    tokens: Numbers


class Trial(NamedTuple):
    """What a trial found."""

    seconds: float
    """For the whole build."""
    tokens: int
    """That it computed."""
    device: str


def count_windows(n_tokens: Numbers, spec: EncoderSpec) -> Windows:
    """Windows of sequences with so many tokens, (sequences,); one of the whole sequence under other crops."""
    if spec.crop != "windows":
        return Windows(np.ones_like(n_tokens), n_tokens)
    over = np.maximum(n_tokens - spec.max_tokens, 0)
    return Windows(1 - (-over // (spec.max_tokens - spec.overlap)), np.minimum(n_tokens, spec.max_tokens))


def drawn_options(options: EncoderOptions) -> EncoderOptions:
    """The options with weights that are drawn, by seed 0 if they name none."""
    return {**options, "weights": None, "random_init": options.get("random_init") or 0}


def try_out(plan: Plan, job: "BuildJob", name: str, trial_seconds: float) -> Trial:
    """Embed some batches with random weights; seconds that all sequences of the plan will take.

    Args:
        plan: What there is to embed.
        job: The build.
        name: Card of its encoder.
        trial_seconds: About how long to compute. At least three batches are tried if they differ in length.
    """
    from embedcache.budget import find_budget
    from embedcache.modality import resolve_device

    device = resolve_device(job.device)
    if not plan.keys:
        return Trial(0.0, 0, device)
    options = job.options if card(name).weights else drawn_options(job.options)
    encoder = load_layers(name, job.modality, job.layers, device=device, **options)
    budget = job.tokens_per_batch or find_budget(encoder, device)
    layers = [spec.layer for spec in layer_specs(name, encoder.spec, job.layers)]
    return Trial(*time_batches(plan, encoder, layers, budget, trial_seconds), device)


def time_batches(
    plan: Plan, encoder: "LayeredEncoder", layers: list[int], budget: int, trial_seconds: float
) -> tuple[float, int]:
    """Seconds for the whole plan, and tokens that were computed to find out."""
    spec = encoder.spec
    windows = count_windows(plan.n_tokens, spec)
    # a call gets windows as if they were sequences: the encoder behind the stitching is timed
    network = encoder.encoder if isinstance(encoder, WindowedEncoder) else encoder
    order = np.repeat(order := by_length(windows.tokens, plan.keys), windows.passes[order])
    batches = list(cut_by_tokens(order, windows.tokens, budget))
    network.encode_layers(
        _letters(plan, spec, batches[-1][-1:]), layers
    )  # the first call pays for what later ones do not
    lengths, rates, spent, tokens = list[float](), list[float](), 0.0, 0
    for k in _spread(len(batches)):
        letters, n_tokens = _letters(plan, spec, batches[k]), int(windows.tokens[batches[k]].sum())
        started = time.perf_counter()
        network.encode_layers(letters, layers)
        seconds = time.perf_counter() - started
        lengths.append(n_tokens / len(letters))
        rates.append(seconds / max(n_tokens, 1))
        spent, tokens = spent + seconds, tokens + n_tokens
        if spent > trial_seconds and (len(rates) > 2 or np.ptp(windows.tokens) == 0):
            break
    seconds_a_token = _interpolated(np.array(lengths), np.array(rates))
    return float((seconds_a_token(windows.tokens) * windows.tokens * windows.passes).sum()), tokens


def _letters(plan: Plan, spec: EncoderSpec, batch: Numbers) -> list[str]:
    """Letters of the windows of a batch: the first ones of each sequence, for all of a sequence are equally long."""
    letters = list[str]()
    for i, count in zip(*map(np.ndarray.tolist, np.unique(batch, return_counts=True)), strict=True):
        sequence = plan.sequence(i)
        if spec.crop == "windows":
            windows = plan_windows(plan.lengths[i], spec.max_tokens, spec.overlap)
            letters += window_letters(sequence, spec.tokens, windows)[:count]
        else:
            letters.append(sequence)
    return letters


def _spread(n: int) -> list[int]:
    """Numbers from 0 to n - 1 such that any beginning of the list is spread over all of them."""
    order, step = [n // 2, 0, n - 1], n
    while step > 1 and len(order) < min(n, MOST_BATCHES):
        order += range(step // 2, n, step)
        step //= 2
    return list(dict.fromkeys(order))[:MOST_BATCHES]


def _interpolated(lengths: NDArray[np.float64], rates: NDArray[np.float64]) -> Callable[[Numbers], NDArray[np.float64]]:
    """Seconds a token as a function of length, straight between the lengths that were tried."""
    order = np.argsort(lengths, kind="stable")
    distinct, first = np.unique(lengths[order], return_index=True)
    typical = [float(np.median(part)) for part in np.split(rates[order], first[1:])]
    return lambda n_tokens: cast("NDArray[np.float64]", np.interp(n_tokens, distinct, typical))
