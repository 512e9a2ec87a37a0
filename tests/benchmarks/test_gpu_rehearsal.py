"""The rehearsal's quick half: two layers at the full width on fake tensors, and what it can find."""

import pytest
import torch

from benchmarks.gpu_rehearsal import __main__ as rehearsal
from benchmarks.gpu_rehearsal.__main__ import Line, table
from benchmarks.gpu_rehearsal.card import fake_card
from benchmarks.gpu_rehearsal.requests import SIDE, Model
from models.inference.device import loaded_model
from models.inference.device.placement import working_bytes
from models.inference.forecast import PUBLISHED

LAYERS = 2
BLOCKS = [
    {"block": kind, "precision": "bfloat16", "GB": whole, "GB of fused kernels": fused}
    for kind, whole, fused in (
        ("layer", 1.719, 0.636),
        ("with SwiGLU", 1.349, 0.383),
        ("first", 1.656, 0.573),
        ("last", 1.815, 0.732),
    )
]


def test_step_of_two_layers_keeps_to_its_share_of_kernels_and_bytes() -> None:
    lines = {line.what: line.measured for line in rehearsal.at_full_size(BLOCKS, LAYERS)}
    # 30 layers and 2 refiners, and what is around them, have a bound of 1,150 and of 87 GB.
    assert lines["kernels a step, eager"] <= 1150 - 28 * 33
    assert lines["memory traffic a step, eager, GB"] <= 87 - 28 * 2.5
    # The graph, a copy for each of its inputs and one of its output, and the schedule's three.
    assert lines["launches of a captured step, Union 1.0"] <= 12
    assert lines["launches of the text encoder a prompt"] == 1
    assert lines["launches of a token of Magic Prompt"] <= 6
    assert lines["uploads for a change of three LoRAs used before"] == 0
    assert lines["memory traffic a step, compiled, GB"] < lines["memory traffic a step, eager, GB"]
    # Four blocks, two of them the refiner's.
    saved = (
        lines["memory traffic a step, compiled, GB"]
        - lines["memory traffic a step, compiled with SwiGLU, GB"]
    )
    assert saved == pytest.approx(4 * 0.37, abs=0.02)


def test_every_placement_that_a_card_gets_runs_without_a_mismatch() -> None:
    lines = list(rehearsal.every_placement(1, (12,)))
    assert len(lines) == 4 + 2 + 4
    for line in lines:
        assert line.met, line.what


@pytest.mark.parametrize(("card_gb", "capability"), [(12, (9, 0)), (12, (7, 5)), (6, (7, 5))])
def test_autoencoder_takes_no_more_of_a_card_than_is_planned(
    card_gb: int, capability: tuple[int, int]
) -> None:
    with fake_card(card_gb, capability) as recorder, Model(recorder, 1) as model:
        picture = model.request()
        weight, placement = PUBLISHED, model.loaded.placement
        planned = working_bytes(
            weight.width, weight.vae_width, placement.dtype, SIDE**2, placement.whole_pixels
        )
        taken = picture.parts["autoencoder"].peak - recorder.live
        # It is float32 beside float16, and in small tiles where the card is too small.
        assert 0.6 * planned < taken <= planned


def test_wait_upload_and_memory_are_seen() -> None:
    with fake_card(24) as recorder, recorder.counting() as counts:
        weights = torch.empty(1000, 1000).to("cuda")
        assert counts.pageable.total() == counts.uploads == 1
        product = weights @ weights
        assert [kernel.name for kernel in counts.kernels] == ["mm"]
        assert (counts.flop, counts.bytes, recorder.live) == (2 * 1000**3, 8_000_000, 8_000_000)
        pinned = torch.empty(3, pin_memory=True)
        before = counts.waits.total()
        pinned.to("cuda", non_blocking=True)
        assert counts.waits.total() == before
        product.sum().item()
        assert counts.waits.total() == before + 1
        with pytest.raises(RuntimeError, match="device"):
            product @ torch.empty(1000, 1000)


def test_event_is_waited_for_only_while_nothing_comes_behind_it() -> None:
    with fake_card(24) as recorder, recorder.counting() as counts:
        number = torch.empty(3, device="cuda")
        done = torch.cuda.Event()
        done.record()
        number + 1
        done.synchronize()
        assert not counts.waits
        done.record()
        done.synchronize()
        assert counts.waits.total() == 1


def test_graph_is_one_launch_and_takes_no_upload() -> None:
    with fake_card(24) as recorder:
        number = torch.empty(3, device="cuda")
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            number + 1 + 1
        with recorder.counting() as counts:
            graph.replay()
        assert counts.launches == 1
        with pytest.raises(RuntimeError, match="captured"), torch.cuda.graph(torch.cuda.CUDAGraph()):
            torch.ones(3).to("cuda")


def test_text_encoder_that_was_away_is_captured_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_card(80) as recorder, Model(recorder, 1) as model:
        model.request()
        planned = model.loaded.placement
        # As `fit` does where memory runs out.
        model.loaded.free_cache()
        while model.loaded.placement.mode == "resident":
            assert model.loaded.shrink(SIDE * SIDE)
        monkeypatch.setattr(loaded_model, "QUIET_SECONDS", 0.0)
        back = model.request(prompt="two blue balls")
        assert model.loaded.placement == planned
        # Its weights are elsewhere now, and the graph has their old addresses.
        assert back.parts["text_encoder"].launches > 1
        assert model.request(prompt="three green balls").parts["text_encoder"].launches == 1


def test_page_locked_memory_is_counted_by_powers_of_two() -> None:
    with fake_card(12) as recorder:
        torch.empty(5000, dtype=torch.uint8).pin_memory()
        assert recorder.most_pinned == 8192


def test_memory_of_the_host_is_what_is_neither_mapped_nor_without_numbers() -> None:
    with fake_card(12) as recorder:
        torch.empty(1000, dtype=torch.uint8, device="meta")
        with recorder.mapping():
            torch.empty(1000, dtype=torch.uint8)
        assert recorder.most_private == 0
        torch.empty(1000, dtype=torch.uint8)
        assert recorder.most_private == 1000


def test_table_says_which_bound_is_not_met() -> None:
    assert "| kernels | 2 | 1 | NO |" in table([Line("kernels", 2, 1), Line("bytes", 5)])
    assert not Line("kernels", None, 1).met
