"""The simulated fleet obeys what holds for every queue, whatever its service times are."""

import argparse

import pytest

from benchmarks.simulation.fleet import Server

MOVES = ("submit", "status", "next_io", "next_gpu", "advance", "beat", "watched", "close", "bell")
MILLISECOND = 0.001


def run(gpus: int, cost: float, seconds: float = 20.0) -> dict[str, float]:
    """A server whose every move costs Redis as much."""
    options = argparse.Namespace(picture=1.0, prepare=0.05, finish=0.1, load=0.8, seconds=seconds, seed=1)
    return Server(gpus, options, dict.fromkeys((*MOVES, "worker_second"), cost), 0).run()


def test_redis_is_busy_by_what_a_picture_costs_times_their_number() -> None:
    seen = run(40, MILLISECOND)
    moves = 1 + 3 + 2 + 2 + 1 + 2 * 8 + 1 + seen["bells_a_picture"]
    expected = MILLISECOND * (seen["pictures_per_s"] * moves + 40 + seen["io_workers"])
    assert seen["redis_busy"] == pytest.approx(expected, rel=0.05)


def test_gpus_are_busy_by_the_load() -> None:
    assert run(40, 0)["gpu_busy"] == pytest.approx(0.8, abs=0.05)


def test_redis_that_is_too_slow_holds_the_fleet_back_and_is_always_busy() -> None:
    seen = run(100, MILLISECOND)
    assert seen["redis_busy"] == pytest.approx(1.0, abs=0.01)
    assert seen["pictures_per_s"] < 0.8 * seen["submitted_per_s"]
