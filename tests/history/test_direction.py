"""Which way a metric gets better, by the words of its name."""

from __future__ import annotations

import pytest
from phalanx.controller.results.direction import Direction, direction_of


@pytest.mark.parametrize(
    "metric",
    [
        *(
            "s",
            "ms",
            "seconds",
            "Seconds",
            "latency",
            "latency_p99_ms",
            "stepTime",
            "step time (ms)",
            "TTFT",
            "loss",
        ),
        *(
            "validation loss",
            "ms/step",
            "s/iter",
            "seconds per token",
            "seconds_per_step",
            "time/GPU",
            "elapsed",
        ),
        *("perplexity", "error rate", "msPerStep", "µs", "train_runtime", "time_to_first_token"),
    ],
)
def test_times_losses_and_errors_are_better_when_lower(metric: str) -> None:
    assert direction_of(metric) is Direction.LOWER


@pytest.mark.parametrize(
    "metric",
    [
        *("tok/s", "MB/s", "GB/s", "tokens/s/GPU", "samples_per_second", "samplesPerSecond", "images/sec"),
        *(
            "requests per second",
            "TFLOPS",
            "accuracy",
            "throughput",
            "it/s",
            "",
            "min tok/s",
            "times",
            "lossless",
        ),
        *("train_samples_per_second", "MFU", "Hz", "uptime", "errorless"),
    ],
)
def test_rates_and_all_else_are_better_when_higher(metric: str) -> None:
    assert direction_of(metric) is Direction.HIGHER
